"""The callback by which long tasks report progress."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the number of steps done and the total."""
