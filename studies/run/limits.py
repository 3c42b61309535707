"""Hard limits: reject candidates above them, and give up a search that finds no others."""

from __future__ import annotations

from collections.abc import Mapping

from nas.findings import Findings
from search_spaces.numbers import at_least, at_most
from studies.record.records import TrialRecord

MAX_REJECTIONS = 300
"""A study gives up after this many rejected candidates in a row."""

MAX_MEASURED_REJECTIONS = 20
"""A study gives up after this many measured ones in such a row; each takes seconds."""


class Limits:
    """The largest value of each limited objective that is still worth training.

    Args:
        largest: Value by objective; empty where nothing is limited.
    """

    def __init__(self, largest: Mapping[str, float]) -> None:
        self._largest = largest
        self._rejected: list[TrialRecord] = []

    def violations(
        self, objectives: Mapping[str, float], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Return value / limit - 1 for each limit whose value is known; above 0 it is violated.

        A latency that was not measured counts with its predicted lower bound.
        """
        known = _known(objectives, metrics)
        limits = self._largest.items()
        return {name: known[name] / limit - 1 for name, limit in limits if name in known}

    def missed(self, findings: Findings) -> str | None:
        """Return the reason for rejecting a candidate; None if it violates no limit."""
        known = findings.objectives
        for name, excess in self.violations(known, findings.metrics).items():
            if excess <= 0:
                continue
            limit = f"over the limit {at_most(self._largest[name])}"
            if name in known:
                return f"{name} {at_least(known[name])} is {limit}"
            least = findings.metrics["latency_ms_at_least"]
            return f"{name} is predicted to be at least {at_least(least)}, {limit}"
        return None

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
        known = [(trial, _known(trial.objectives, trial.metrics)) for trial in self._rejected]
        parts = []
        for name in self._largest:
            values = [(there[name], name in t.objectives) for t, there in known if name in there]
            if values:
                value, found = min(values)
                parts.append(f"{name} {at_least(value)}{'' if found else ' (predicted)'}")
        return ", ".join(parts)


def _known(objectives: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the objectives, with the predicted lower bound of a latency that was not measured."""
    least = metrics.get("latency_ms_at_least")
    return {**({"latency_ms": least} if least else {}), **objectives}
