"""Exact counts and predicted latencies of architectures, without building them."""
