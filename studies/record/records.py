"""The record of a study: what every table, figure and export is made from."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nas.findings import Findings
from nas.objectives import DEFAULT_OBJECTIVES, OBJECTIVES, Objective, nondominated
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
NAME_RULE = "use up to 80 letters, digits, '.', '_' and '-', and begin with a letter or digit"
"""What a study may be called: its name is that of its folder and stands in pages and commands."""

State = Literal["running", "complete", "rejected", "stopped", "failed"]
"""rejected: a hard limit said no before training.
stopped: its training was ended early, since it could not matter any more.
failed: diverged, ran out of memory or was interrupted; `reason` says which."""


@dataclass(frozen=True)
class FinalLatency:
    """What a study's last measurement found of one architecture.

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


@dataclass(frozen=True)
class StudyRecord:
    """A whole study: its question (config), its place (environment) and its trials in order."""

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    folder: Path
    space_size: int | None = None
    space_distinct: int | None = None
    """Distinct architectures of a small space; None where they were not counted."""
    measured_together: bool = False
    """The front's latencies come from one measurement of all its members, at the study's end."""
    mixed: tuple[str, ...] = ()
    """In what the environments differ whose latencies were mixed, as the user had asked for."""

    @property
    def exhausted(self) -> bool:
        """Whether every distinct architecture of the space was tried."""
        if self.space_distinct is None:
            return False
        tried = {t.digest for t in self.trials if t.assignment and t.state != "running"}
        return len(tried) >= self.space_distinct

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.trials[0].architecture.image_size

    @cached_property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the objectives, in the study's order."""
        return tuple(objective.name for objective in self.objectives)

    @cached_property
    def recorded(self) -> tuple[Objective, ...]:
        """The default objectives that were not asked for, but are known of every complete trial."""
        known = [trial.objectives.keys() for trial in self.complete]
        return tuple(
            OBJECTIVES[name]
            for name in DEFAULT_OBJECTIVES
            if known and name not in self.objective_names and all(name in one for one in known)
        )

    def trial(self, number: int) -> TrialRecord:
        """Return the trial of that number; raise `KeyError` if there is none."""
        if not _has(self.trials, number):
            raise KeyError(number)
        return self.trials[_place(self.trials, number)]

    def with_trial(self, trial: TrialRecord) -> StudyRecord:
        """Return the study with this trial besides the others, or in place of its earlier self.

        A study may so grow trial by trial: what follows from the trials is taken over, and only the
        new one is compared with the front.
        """
        grown = replace(self, trials=_put(self.trials, trial))
        before = self.trial(trial.number) if _has(self.trials, trial.number) else None
        if before is not None and before.state == "complete":
            return grown
        complete, front, references = self.complete, self.front, self.references
        if trial.state == "complete":
            complete, front = _put(complete, trial), self._front_of([*front, trial])
            if trial.reference:
                ordered = _put(tuple(references.values()), trial)
                references = {one.reference: one for one in ordered if one.reference}
        searched = self.searched + trial.searched - (before is not None and before.searched)
        grown.__dict__.update(
            complete=complete, front=front, references=references, searched=searched
        )
        return grown

    @cached_property
    def searched(self) -> int:
        """Number of candidates that the search has to show, references and rejections apart."""
        return sum(trial.searched for trial in self.trials)

    @cached_property
    def complete(self) -> tuple[TrialRecord, ...]:
        """Every fully evaluated architecture once, references included."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @cached_property
    def references(self) -> dict[str, TrialRecord]:
        """The reference points that were fully evaluated, by name."""
        return {trial.reference: trial for trial in self.complete if trial.reference}

    @cached_property
    def front(self) -> tuple[TrialRecord, ...]:
        """The non-dominated complete trials, best first objective first."""
        return self._front_of(self.complete)

    def _front_of(self, trials: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
        mask = nondominated(self.points(trials))
        members = [trial for trial, keep in zip(trials, mask, strict=True) if keep]
        first = self.objective_names[0]
        return tuple(sorted(members, key=lambda t: (t.objectives[first], t.number)))

    @cached_property
    def nadir(self) -> npt.NDArray[np.float64]:
        """Corner of the hypervolume box: 1.1 x the worse reference in each objective.

        Without references (neither finished), 1.1 x the worst trial.
        """
        anchors = list(self.references.values()) or list(self.complete)
        if not anchors:
            return np.ones(len(self.objectives))
        nadir: npt.NDArray[np.float64] = 1.1 * self.points(anchors).max(axis=0)
        return nadir

    def points(self, trials: Iterable[TrialRecord]) -> npt.NDArray[np.float64]:
        """Objective values of `trials`, shape (trials, objectives)."""
        rows = [[trial.objectives[name] for name in self.objective_names] for trial in trials]
        return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(self.objectives))

    def reconstructions(self, trial: TrialRecord) -> Path:
        """Path of the trial's reconstructions: uint8 `.npy`, (images, channels, height, width)."""
        return self.folder / "artefacts" / trial.digest / "reconstructions.npy"

    @property
    def samples(self) -> Path:
        """Path of the images every trial reconstructs, laid out like `reconstructions`."""
        return self.folder / "artefacts" / "samples.npy"


def _place(trials: Sequence[TrialRecord], number: int) -> int:
    return bisect_left(trials, number, key=lambda trial: trial.number)


def _has(trials: Sequence[TrialRecord], number: int) -> bool:
    place = _place(trials, number)
    return place < len(trials) and trials[place].number == number


def _put(trials: tuple[TrialRecord, ...], trial: TrialRecord) -> tuple[TrialRecord, ...]:
    place = _place(trials, trial.number)
    return (*trials[:place], trial, *trials[place + _has(trials, trial.number) :])
