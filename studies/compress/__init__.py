"""Compress a trained model of a study: stages, each with its controls."""
