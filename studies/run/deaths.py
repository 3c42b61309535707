"""Which trials are given up because the process that evaluates them dies again and again."""

from __future__ import annotations

from collections import Counter

MAX_STARTS = 3
"""Deaths of the process that evaluated a trial, without an epoch of progress, that fail it."""

MAX_STARTS_APART = 10
"""The same for deaths of the driver, where it does not evaluate: hardly the candidate's fault."""


class Deaths:
    """Deaths of the processes that evaluated trials, since their last epoch of progress."""

    def __init__(self) -> None:
        self._deaths: Counter[int] = Counter()

    def add(self, number: int) -> None:
        """Count a death."""
        self._deaths[number] += 1

    def forget(self, number: int) -> None:
        """Begin anew: the trial has made progress."""
        del self._deaths[number]

    def too_many(self, number: int, starts: int, apart: bool) -> str | None:
        """Say why a trial is not begun again, or None if it is.

        Args:
            number: The trial.
            starts: How often it was begun before, by any driver, without an epoch of progress.
            apart: Whether other processes than the driver evaluate.
        """
        deaths, most = self._deaths[number], MAX_STARTS_APART if apart else MAX_STARTS
        if deaths < MAX_STARTS and starts < most:
            return None
        return f"the process ended {max(starts, deaths)} times while evaluating it"
