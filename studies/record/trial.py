"""The record of one trial."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from nas.findings import Findings
from nas.objectives import LATENCY, OBJECTIVES, latency_in
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.record.formats import format_value, html_table, noun
from studies.record.noise import Mean

State = Literal["running", "complete", "rejected", "open", "stopped", "failed"]
"""The state of a trial.

rejected: it is above a hard limit, see `studies.record.verdict`.
open: an earlier limit rejected it, and it is within those of now: it may be evaluated again.
stopped: early stopping ended its training.
failed: it diverged, ran out of memory or was interrupted; `reason` says which.
"""


IN_SEARCH, ON_TEST = "_in_search", "_on_test"
"""Endings of metrics: the value that the search saw, and that on the test images."""


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
class SeedRun:
    """A further training of one architecture, with another seed than that of the search.

    Attributes:
        seed: Seed of the weights, the order of images and the noise.
        validation: Means over the validation images, by the names of objectives and metrics.
        test: Means over the test images, likewise; no decision uses them.
        best_epoch: Epoch of the lowest validation loss; its weights are evaluated.
        duration_s: Duration of training and validation in seconds.
        reason: Why the training failed; None if it did not.
    """

    seed: int
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    best_epoch: int = 0
    duration_s: float = 0.0
    reason: str | None = None


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
        runs: Its further trainings with other seeds, which confirm it.
        samples: Values that the mean of each trained objective rests on; empty if it is not
            confirmed.
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
    runs: tuple[SeedRun, ...] = ()
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{12}", self.digest):  # it names a folder of artefacts
            raise UserError(
                f"trial {self.number}: the storage is damaged or was tampered with: "
                f"{self.digest[:40]!r} is not a digest of an architecture"
            )

    def __repr__(self) -> str:
        """Return name, state and objective values."""
        values = ", ".join(f"{name} {value}" for name, value in self._shown().items())
        return f"TrialRecord({', '.join(filter(None, [self.name, self.state, values]))})"

    def _repr_html_(self) -> str:
        """Return state, objective values and architecture, as a notebook shows them."""
        rows = {"state": self.state, **self._shown(), "architecture": self.architecture.summary}
        if self.reason:
            rows["reason"] = self.reason
        return html_table(["", self.name], list(rows.items()))

    def _shown(self) -> dict[str, str]:
        known = {n: value for n, value in self.objectives.items() if n in OBJECTIVES}
        return {noun(OBJECTIVES[n]): format_value(OBJECTIVES[n], v) for n, v in known.items()}

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

    def with_latency(self, final: FinalLatency, anchor_ms: float, setup: str = "") -> TrialRecord:
        """Return the trial with its final latency: the ratio to `original` times `anchor_ms`.

        The latency of the search stays in `metrics`, as `latency_ms_in_search`.

        Args:
            final: The latency as measured at the end of the study.
            anchor_ms: Latency of `original` when the study began, in ms.
            setup: Name of a further set-up of the study.
        """
        name, end = latency_in(setup), f":{setup}" if setup else ""
        middle, low, high = (anchor_ms * bound for bound in next(iter(final.over.values())))
        ratios = {
            f"latency_over_{one}{bound}{end}": value
            for one, values in final.over.items()
            for bound, value in zip(("", "_low", "_high"), values, strict=True)
        }
        known = self.objectives.get(name)
        seen = {} if known is None else {f"{LATENCY}{IN_SEARCH}{end}": known}
        findings = replace(
            self.findings,
            objectives={**self.objectives, name: middle},
            metrics={**self.metrics, **ratios, **seen},
            intervals={**self.intervals, name: (low, high)},
            contended=final.contended or (bool(setup) and self.contended),
        )
        return replace(self, findings=findings)

    @property
    def confirmed(self) -> bool:
        """Whether its losses are means over trainings that were not the reason to choose it."""
        return bool(self.samples)

    def mean_of(self, name: str) -> Mean:
        """Return the recorded value of a trained objective, and the trainings it rests on."""
        return Mean(self.objectives[name], max(1, len(self.samples.get(name, ()))))

    def observed(self, name: str) -> float:
        """Return the value of a trained objective that the search saw, with its one seed."""
        return self.metrics.get(f"{name}{IN_SEARCH}", self.objectives[name])

    def with_runs(self, runs: Sequence[SeedRun]) -> TrialRecord:
        """Return the trial with further trainings; its losses become means over the seeds.

        The search chose a candidate by its loss with one seed, which is therefore too low on
        average: the mean of a candidate rests on the further seeds alone. That of a reference,
        which no loss chose, rests on all. Losses of the search stay in `metrics`, as
        `reconstruction_loss_in_search`; those on the test images are there as
        `reconstruction_loss_on_test`.

        Args:
            runs: The further trainings; those that failed do not count.
        """
        confirmed, good = replace(self, runs=tuple(runs)), [r for r in runs if r.reason is None]
        if not good:
            return confirmed
        values = self._values_of(good)
        means = {name: fmean(numbers) for name, numbers in values.items()}
        learned = [name for name in values if name in self.objectives]
        known = {**self.metrics, **self.objectives}
        seen = {f"{n}{IN_SEARCH}": known[n] for n in (*learned, "total_loss") if n in known}
        own = {"seeds": len(good) + (self.reference is not None)}
        findings = replace(
            self.findings,
            objectives={n: means.get(n, value) for n, value in self.objectives.items()},
            metrics={n: means.get(n, value) for n, value in self.metrics.items()}
            | {**seen, **_on_test(good, (*learned, "total_loss")), **own},
            timings_s={**self.findings.timings_s, "confirmation": sum(r.duration_s for r in runs)},
        )
        samples = {name: tuple(values[name]) for name in learned}
        return replace(confirmed, findings=findings, samples=samples)

    def _values_of(self, good: Sequence[SeedRun]) -> dict[str, list[float]]:
        """Return the values on the validation images that count, by name: one per training."""
        known = {**self.metrics, **self.objectives}
        return {
            name: ([known[name]] if self.reference else []) + [run.validation[name] for run in good]
            for name in good[0].validation
            if name in known and all(name in run.validation for run in good)
        }


def _on_test(good: Sequence[SeedRun], names: Sequence[str]) -> dict[str, float]:
    """Return the means over the test images of some values, by the names of metrics."""
    return {
        f"{name}{ON_TEST}": fmean(run.test[name] for run in good)
        for name in names
        if all(name in run.test for run in good)
    }
