"""Fail trials whose process dies repeatedly."""

from __future__ import annotations

from collections import Counter

MAX_STARTS = 3
"""A trial fails after this many deaths of its process without an epoch of progress."""

MAX_STARTS_APART = 10
"""A trial fails after this many starts without an epoch of progress, where workers evaluate.

Most of these starts ended with the driver, which a candidate in a worker hardly causes.
"""


class Deaths:
    """Number of deaths of each trial's process since its last epoch of progress."""

    def __init__(self) -> None:
        self._deaths: Counter[int] = Counter()

    def add(self, number: int) -> None:
        """Count a death of a trial's process."""
        self._deaths[number] += 1

    def forget(self, number: int) -> None:
        """Reset the count of a trial that has made progress."""
        del self._deaths[number]

    def too_many(self, number: int, starts: int, apart: bool) -> str | None:
        """Return the reason for not starting a trial again; None if it may start.

        Args:
            number: The trial's number.
            starts: Number of earlier starts, by any driver, without an epoch of progress.
            apart: Whether other processes than the driver evaluate.
        """
        deaths, most = self._deaths[number], MAX_STARTS_APART if apart else MAX_STARTS
        if deaths < MAX_STARTS and starts < most:
            return None
        return f"the process ended {max(starts, deaths)} times while evaluating it"
