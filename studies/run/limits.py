"""Give up a search whose hard limits reject every candidate."""

from __future__ import annotations

from search_spaces.numbers import at_least, at_most
from studies.record.records import TrialRecord
from studies.record.verdict import Limits

MAX_REJECTIONS = 300
"""A study gives up after this many rejected candidates in a row."""

MAX_MEASURED_REJECTIONS = 20
"""A study gives up after this many measured ones in such a row; each takes seconds."""


class Rejections:
    """The rejected candidates in a row.

    Args:
        largest: The study's hard limits.
    """

    def __init__(self, largest: Limits) -> None:
        self._largest = largest
        self._rejected: list[TrialRecord] = []

    def count(self, trial: TrialRecord) -> None:
        """Count rejections in a row; a candidate that was not rejected ends the row."""
        if trial.state == "rejected":
            self._rejected.append(trial)
        elif trial.searched:
            self._rejected.clear()

    def hopeless(self) -> str | None:
        """Return the reason for giving up the search; None while it continues."""
        row = self._rejected
        measured = sum("latency_ms" in t.objectives for t in row)
        if len(row) < MAX_REJECTIONS and measured < MAX_MEASURED_REJECTIONS:
            return None
        limits = ", ".join(f"{name} {at_most(limit)}" for name, limit in self._largest.items())
        over = f"were all over {limits}" if limits else "were all rejected"
        smallest = self._smallest()
        values = f"; the smallest values among them are {smallest}" if smallest else ""
        return (
            f"limits: the last {len(row)} candidates {over}{values}: raise the limits or choose "
            "another space"
        )

    def _smallest(self) -> str:
        """Return a text with the smallest value of each limited objective among the rejected ones.

        Empty if none of them has a value of a limited objective: where the limits of a study were
        changed, it may have candidates that another limit rejected.
        """
        known = [(trial, _known(trial)) for trial in self._rejected]
        parts = []
        for name in self._largest:
            values = [(there[name], name in t.objectives) for t, there in known if name in there]
            if values:
                value, found = min(values)
                parts.append(f"{name} {at_least(value)}{'' if found else ' (predicted)'}")
        return ", ".join(parts)


def _known(trial: TrialRecord) -> dict[str, float]:
    """Return the objectives, with the predicted lower bound of a latency that was not measured."""
    least = trial.metrics.get("latency_ms_at_least")
    return {**({"latency_ms": least} if least else {}), **trial.objectives}
