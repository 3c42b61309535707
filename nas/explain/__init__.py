"""Explain the latency gap between two architectures by causes."""
