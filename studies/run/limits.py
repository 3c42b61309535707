"""Hard limits: which candidates miss them, by how much, and when they leave too little."""

from __future__ import annotations

from collections.abc import Mapping

from nas.findings import Findings
from studies.record.records import TrialRecord

MAX_REJECTIONS = 300
"""Candidates over a hard limit in a row after which a study ends: its limits leave too little."""

MAX_MEASURED_REJECTIONS = 20
"""The same for candidates that had to be measured, which takes seconds each."""


class Limits:
    """The largest values that are worth training, by objective; without any nothing is missed."""

    def __init__(self, largest: Mapping[str, float]) -> None:
        self._largest = largest
        self._rejected: list[TrialRecord] = []

    def violations(
        self, objectives: Mapping[str, float], metrics: Mapping[str, float]
    ) -> dict[str, float]:
        """Return by how much each limit is missed, relative to it; above zero is a miss.

        A latency that was not measured counts as the lowest value that is predicted for it.
        """
        known = _known(objectives, metrics)
        limits = self._largest.items()
        return {name: known[name] / limit - 1 for name, limit in limits if name in known}

    def missed(self, findings: Findings) -> str | None:
        """Say which limit is missed, if one is."""
        known = findings.objectives
        for name, excess in self.violations(known, findings.metrics).items():
            if excess <= 0:
                continue
            limit = f"over the limit {self._largest[name]:g}"
            if name in known:
                return f"{name} {known[name]:.6g} is {limit}"
            least = findings.metrics["latency_ms_at_least"]
            return f"{name} is predicted to be {least:.4g} at least, {limit}"
        return None

    def count(self, trial: TrialRecord) -> None:
        """Keep the candidates that were rejected since the last one that was not."""
        if trial.state == "rejected":
            self._rejected.append(trial)
        elif trial.searched:
            self._rejected.clear()

    def hopeless(self) -> str | None:
        """Say why the limits leave too little to go on, or None while they do not."""
        row = self._rejected
        measured = sum("latency_ms" in t.objectives for t in row)
        if len(row) < MAX_REJECTIONS and measured < MAX_MEASURED_REJECTIONS:
            return None
        limits = ", ".join(f"{name} {limit:g}" for name, limit in self._largest.items())
        return (
            f"limits: the last {len(row)} candidates were all over {limits}; the smallest values "
            f"among them are {self._smallest()}: raise the limits or choose another space"
        )

    def _smallest(self) -> str:
        """Write the smallest value of each limited objective among the rejected candidates.

        Every one of them missed a limit by a known value, so at least one objective is written.
        """
        known = [(trial, _known(trial.objectives, trial.metrics)) for trial in self._rejected]
        parts = []
        for name in self._largest:
            values = [(there[name], name in t.objectives) for t, there in known if name in there]
            if values:
                value, found = min(values)
                parts.append(f"{name} {value:.4g}{'' if found else ' (predicted)'}")
        return ", ".join(parts)


def _known(objectives: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return objectives, with the predicted lower bound of a latency that was not measured."""
    least = metrics.get("latency_ms_at_least")
    return {**({"latency_ms": least} if least else {}), **objectives}
