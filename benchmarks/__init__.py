"""Benchmarks: the programs that measured the speed figures of the documentation."""
