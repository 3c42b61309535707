"""Architectures, the search spaces that contain them, and the two reference models."""
