"""Costs of an architecture without building it: exact ones, and latency by a calibrated law."""
