"""The one kind of error of this package that a user, not a programmer, has to act on."""


class ProfilingError(ValueError):
    """Bad input to a measurement. Its message is one clear line: what, which value, the remedy."""
