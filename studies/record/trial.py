"""The record of one trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

State = Literal["running", "complete", "rejected", "stopped", "failed"]
"""rejected: it is over a hard limit, which was found before training.
stopped: the rule of early stopping ended its training.
failed: it diverged, ran out of memory or was interrupted; `reason` says which."""


@dataclass(frozen=True)
class FinalLatency:
    """The latency of one architecture as measured again when the study ended.

    Attributes:
        over: Latency as a multiple of each reference's, by its name: (median, low, high), the ends
            of a 95 % interval.
        contended: Something else disturbed the measurement.
    """

    over: Mapping[str, tuple[float, float, float]]
    contended: bool


@dataclass(frozen=True)
class TrialRecord:
    """One trial: the candidate, what was found of it, and its state.

    Attributes:
        number: The trial's number in its study, from 0.
        state: What became of it.
        digest: Of its architecture: 12 hexadecimal digits.
        architecture: The candidate.
        assignment: Its choice on each axis of the space; empty outside the space.
        reference: Name of the reference point that it is, if it is one.
        reason: Why it was rejected, was stopped or failed.
        repeats: How often the sampler proposed known architectures just before this one.
        findings: What its evaluation found; of a complete trial, all the study's objectives.
    """

    number: int
    state: State
    digest: str
    architecture: Architecture
    assignment: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    reason: str | None = None
    repeats: int = 0
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{12}", self.digest):  # it names a folder of artefacts
            raise UserError(
                f"trial {self.number}: the storage is damaged or was tampered with: "
                f"{self.digest[:40]!r} is no digest of an architecture"
            )

    @property
    def objectives(self) -> Mapping[str, float]:
        """Value by objective name, as far as known."""
        return self.findings.objectives

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was recorded beside the objectives, by name."""
        return self.findings.metrics

    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % interval (low, high) by objective name."""
        return self.findings.intervals

    @property
    def contended(self) -> bool:
        """Whether something else on the machine disturbed the latency."""
        return self.findings.contended

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One mapping per epoch of training."""
        return self.findings.history

    @property
    def duration_s(self) -> float:
        """Wall-clock seconds the trial took."""
        return sum(self.findings.timings_s.values())

    @property
    def searched(self) -> bool:
        """Whether it counts towards the trials that a study is to have."""
        return self.reference is None and self.state in ("complete", "stopped", "failed")

    @property
    def name(self) -> str:
        """The reference's name, or `#number`."""
        return self.reference or f"#{self.number}"

    def with_latency(self, final: FinalLatency, anchor_ms: float) -> TrialRecord:
        """Return the trial with its latency as measured last: ratio times `anchor_ms`.

        `anchor_ms` is the latency of `original` when the study began. What the search saw stays in
        `metrics`, as `latency_ms_in_search`.
        """
        middle, low, high = (anchor_ms * bound for bound in next(iter(final.over.values())))
        ratios = {
            f"latency_over_{name}{end}": value
            for name, values in final.over.items()
            for end, value in zip(("", "_low", "_high"), values, strict=True)
        }
        known = self.objectives.get("latency_ms")
        seen = {} if known is None else {"latency_ms_in_search": known}
        findings = replace(
            self.findings,
            objectives={**self.objectives, "latency_ms": middle},
            metrics={**self.metrics, **ratios, **seen},
            intervals={**self.intervals, "latency_ms": (low, high)},
            contended=final.contended,
        )
        return replace(self, findings=findings)
