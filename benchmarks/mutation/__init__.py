"""Mutation test: whether the tests detect small changes (mutants) of the deciding modules."""
