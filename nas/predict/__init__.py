"""Costs of an architecture without building it: exact counts and a predicted latency."""
