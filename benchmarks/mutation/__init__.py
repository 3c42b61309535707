"""Mutation test: whether the tests notice small faults planted in the modules that decide."""
