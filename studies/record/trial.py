"""The record of one trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

State = Literal["running", "complete", "rejected", "open", "stopped", "failed"]
"""The state of a trial.

rejected: it is above a hard limit, see `studies.record.verdict`.
open: an earlier limit rejected it, and it is within those of now: it may be evaluated again.
stopped: early stopping ended its training.
failed: it diverged, ran out of memory or was interrupted; `reason` says which.
"""


@dataclass(frozen=True)
class FinalLatency:
    """The latency of one architecture, as measured again at the end of the study.

    Attributes:
        over: Ratio to the latency of each reference, by the reference's name: (median, low, high)
            with the bounds of a 95 % interval.
        contended: Whether other work disturbed the measurement.
        weights: Description of the weights that the model was timed with; "" if not recorded.
    """

    over: Mapping[str, tuple[float, float, float]]
    contended: bool
    weights: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """A trial: the candidate, its state and its findings.

    Attributes:
        number: The trial's number in its study, from 0.
        state: The trial's state.
        digest: Digest of the architecture: 12 hexadecimal digits.
        architecture: The candidate.
        assignment: Its choice on each axis of the space; empty outside the space.
        reference: Name of the reference model that it is, or None.
        reason: Why it was rejected, was stopped or failed.
        repeats: Number of proposals of known architectures just before this one.
        ended: The state in which its evaluation ended, where the limits of now give another one.
        findings: Findings of its evaluation; a complete trial has all objectives of the study.
    """

    number: int
    state: State
    digest: str
    architecture: Architecture
    assignment: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    reason: str | None = None
    repeats: int = 0
    ended: State | None = None
    findings: Findings = field(default_factory=Findings)

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{12}", self.digest):  # it names a folder of artefacts
            raise UserError(
                f"trial {self.number}: the storage is damaged or was tampered with: "
                f"{self.digest[:40]!r} is not a digest of an architecture"
            )

    @property
    def objectives(self) -> Mapping[str, float]:
        """The known objective values, by name."""
        return self.findings.objectives

    @property
    def metrics(self) -> Mapping[str, float]:
        """The values recorded besides the objectives, by name."""
        return self.findings.metrics

    @property
    def intervals(self) -> Mapping[str, tuple[float, float]]:
        """95 % interval (low, high) by name of the objective."""
        return self.findings.intervals

    @property
    def contended(self) -> bool:
        """Whether other work on the machine disturbed the latency measurement."""
        return self.findings.contended

    @property
    def history(self) -> Sequence[Mapping[str, float]]:
        """One mapping per epoch of training."""
        return self.findings.history

    @property
    def duration_s(self) -> float:
        """Wall-clock duration of the trial in seconds."""
        return sum(self.findings.timings_s.values())

    @property
    def trained(self) -> bool:
        """Whether its training was complete, also if a limit of now rejects it."""
        return (self.ended or self.state) == "complete"

    @property
    def searched(self) -> bool:
        """Whether the trial counts towards the study's `search.trials`.

        A trial whose evaluation a limit did not end counts, also if a limit of now rejects it.
        """
        ended = self.ended or self.state
        return self.reference is None and ended in ("complete", "stopped", "failed")

    @property
    def name(self) -> str:
        """The reference's name, or `#number`."""
        return self.reference or f"#{self.number}"

    def with_latency(self, final: FinalLatency, anchor_ms: float) -> TrialRecord:
        """Return the trial with its final latency: the ratio to `original` times `anchor_ms`.

        The latency of the search stays in `metrics`, as `latency_ms_in_search`.

        Args:
            final: The latency as measured at the end of the study.
            anchor_ms: Latency of `original` when the study began, in ms.
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
