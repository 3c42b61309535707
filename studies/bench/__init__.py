"""Benchmarks of search: recorded tables, simulated time, and samplers compared on them."""
