"""The error of this package for mistakes that the user can correct."""


class ProfilingError(ValueError):
    """Invalid input to a measurement. The message is one line: what, which value, the remedy."""
