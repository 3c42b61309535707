"""The record of a study, from which all tables, figures and exports are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.artefacts import PRIOR_SAMPLES, RECONSTRUCTIONS
from nas.floors import Floors
from nas.objectives import (
    DEFAULT_OBJECTIVES,
    OBJECTIVES,
    Objective,
    hypervolume,
    ideal_point,
    latency_in,
    minimised,
    reference_point,
    trained_objectives,
)
from search_spaces.sizes import Size
from studies.record.learning import unlearned
from studies.record.noise import LEVEL, SeedNoise, certain_pairs
from studies.record.standing import Standing, find, points
from studies.record.trial import FinalLatency, SeedRun, State, TrialRecord
from studies.record.verdict import Limits

__all__ = ["FinalLatency", "SeedRun", "State", "StudyRecord", "TrialRecord"]


@dataclass(frozen=True)
class StudyRecord:
    """A whole study: configuration, environment, and trials in order of their numbers."""

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
    """Whether the front's latencies were measured together at the study's end."""
    mixed: tuple[str, ...] = ()
    """Differences between the environments in which latencies were measured, if mixed."""
    damaged: tuple[str, ...] = ()
    """A line for each trial that is left out because its attributes are damaged."""
    floors: Floors | None = None
    """Losses of the mean training image and of PCA; None in studies that have none recorded."""
    own: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The user's own parts by import string: what each is, and the digest of its source."""
    known: Standing | None = field(default=None, repr=False, compare=False)
    """Derived values of these trials, if known already; ignored for other trials."""

    def __repr__(self) -> str:
        """Return name, numbers of trials and objectives."""
        names = ", ".join(self.objective_names)
        return (
            f"StudyRecord({self.name!r}, {len(self.trials)} trials, {len(self.complete)} complete, "
            f"{len(self.front)} on the front of {names})"
        )

    @property
    def space_name(self) -> str:
        """Name or file of the search space."""
        space = self.config.get("space", "")
        return str(space.get("name", "") if isinstance(space, Mapping) else space)

    @property
    def exhausted(self) -> bool:
        """Whether every distinct architecture of the space has been evaluated."""
        if self.space_distinct is None:
            return False
        tried = {
            t.digest for t in self.trials if t.assignment and t.state not in ("running", "open")
        }
        return len(tried) >= self.space_distinct

    @property
    def image_size(self) -> Size:
        """Size of the images in pixels."""
        return self.trials[0].architecture.image_size

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.trials[0].architecture.image_channels

    @cached_property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the objectives, in the study's order."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def trained(self) -> tuple[Objective, ...]:
        """The objectives that are found by training; the first one is *the loss*."""
        return tuple(OBJECTIVES[name] for name in trained_objectives(self.objective_names))

    @property
    def limits(self) -> Limits:
        """The study's hard limits: those of its last run."""
        return self.config.get("limits") or {}

    @property
    def wanted(self) -> frozenset[str]:
        """Names of all values that each candidate needs: objectives and limited ones."""
        return frozenset({*self.objective_names, *self.limits})

    @cached_property
    def recorded(self) -> tuple[Objective, ...]:
        """The values that every complete trial records, although they are not objectives.

        They are among the default objectives and the latencies in the further set-ups.
        """
        known = [trial.objectives.keys() for trial in self.complete]
        further = map(latency_in, self.config.get("setups") or {})
        return tuple(
            OBJECTIVES[name]
            for name in (*DEFAULT_OBJECTIVES, *further)
            if known and name not in self.objective_names and all(name in one for one in known)
        )

    def trial(self, number: int) -> TrialRecord:
        """Return the trial of this number; raise `KeyError` if there is none."""
        if (found := find(self.trials, number)) is None:
            raise KeyError(number)
        return found

    def with_trial(self, trial: TrialRecord) -> StudyRecord:
        """Return the study with this trial added, or in place of its earlier version.

        Derived values are updated, not computed from all trials again.
        """
        standing = self._standing.with_trial(trial)
        return replace(self, trials=standing.trials, known=standing)

    @cached_property
    def _standing(self) -> Standing:
        known = self.known
        if (
            known
            and known.trials is self.trials
            and known.objectives is self.objectives
            and known.floors is self.floors
        ):
            return known
        return Standing.of(self.objectives, self.trials, self.floors)

    @property
    def searched(self) -> int:
        """Number of trials that count towards `search.trials`: see `TrialRecord.searched`."""
        return self._standing.searched

    @property
    def complete(self) -> tuple[TrialRecord, ...]:
        """The complete trials, including references."""
        return self._standing.complete

    @property
    def references(self) -> dict[str, TrialRecord]:
        """The complete reference models, by name."""
        return self._standing.references

    @property
    def learned(self) -> tuple[TrialRecord, ...]:
        """The complete trials, including references, without those that have not learned."""
        return self._standing.learned

    @property
    def yardsticks(self) -> dict[str, TrialRecord]:
        """The complete references that have learned: those that trials are compared with."""
        return {name: one for name, one in self.references.items() if not self.unlearned(one)}

    def unlearned(self, trial: TrialRecord) -> str | None:
        """Return why a complete, trained trial has not learned, as a clause; None otherwise.

        It has not if its loss is not below that of the mean training image, if its reconstructions
        hardly vary between images, or if its KL divergence is below one nat.
        """
        return unlearned(trial, self.floors)

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The non-dominated trials of `learned`, the best in the first objective first."""
        return self._standing.front

    @cached_property
    def ideal(self) -> npt.NDArray[np.float64]:
        """The ideal value of each objective, as minimised: the corner opposite to `nadir`."""
        return ideal_point(self.objective_names)

    @cached_property
    def nadir(self) -> npt.NDArray[np.float64]:
        """Reference point of the hypervolume, as minimised.

        In each objective it is 1.1 times as far from the ideal value as the worse reference model;
        without complete references, as the worst trial.
        """
        anchors = list(self.references.values()) or list(self.complete)
        if not anchors:
            return np.ones(len(self.objectives))
        return reference_point(self.minimised(anchors), self.ideal)

    @cached_property
    def noises(self) -> Mapping[str, SeedNoise]:
        """The seed noise of each trained objective, by name; empty before the confirmation.

        Models that have not learned do not count: their losses may differ by orders of magnitude.
        """
        spent_s = sum(t.findings.timings_s.get("confirmation", 0.0) for t in self.complete)
        found = {
            one.name: SeedNoise.pooled(
                [trial.samples.get(one.name, ()) for trial in self.learned],
                spent_s,
                relative=one.by_factor,
            )
            for one in self.trained
        }
        return {name: noise for name, noise in found.items() if noise is not None}

    @property
    def noise(self) -> SeedNoise | None:
        """The seed noise of the loss; None before the confirmation."""
        return next(iter(self.noises.values()), None)

    @cached_property
    def certain(self) -> frozenset[tuple[str, int, str]]:
        """The certain differences of trained objectives: (objective, trial's number, reference).

        All claims of a study together are wrong with a probability of at most 5 %: half of it is
        for the confirmed trials, half for the others, and Holm's method divides each half among its
        comparisons. A trial that is not confirmed has its single training. That it may look good by
        chance is allowed for, because all such trials are among the comparisons.
        """
        found = set[tuple[str, int, str]]()
        for name, noise in self.noises.items():
            level = LEVEL / 2 / len(self.noises)
            references = {other: one.mean_of(name) for other, one in self.yardsticks.items()}
            for confirmed in (True, False):
                ours = {
                    trial.number: trial.mean_of(name)
                    for trial in self.learned
                    if trial.reference is None and trial.confirmed == confirmed
                }
                pairs = certain_pairs(noise, ours, references, level)
                found |= {(name, number, other) for number, other in pairs}
        return frozenset(found)

    def with_intervals(self) -> StudyRecord:
        """Return the study with a 95 % interval of each trained objective of each complete trial.

        Before the confirmation there are none.
        """
        if not self.noises:
            return self
        trials = tuple(t if t.state != "complete" else self._bounded(t) for t in self.trials)
        return replace(self, trials=trials, known=None)

    def _bounded(self, trial: TrialRecord) -> TrialRecord:
        bounds = {n: noise.interval(trial.mean_of(n)) for n, noise in self.noises.items()}
        findings = replace(trial.findings, intervals={**trial.intervals, **bounds})
        return replace(trial, findings=findings)

    def points(self, trials: Iterable[TrialRecord]) -> npt.NDArray[np.float64]:
        """Return the objective values of `trials`, shape (trials, objectives)."""
        return points(self.objectives, list(trials))

    def minimised(self, trials: Iterable[TrialRecord]) -> npt.NDArray[np.float64]:
        """Return the objective values of `trials` as they are minimised, (trials, objectives)."""
        return minimised(self.points(trials), self.objective_names)

    def hypervolume(self, trials: Iterable[TrialRecord]) -> float:
        """Return the share of the box from `ideal` to `nadir` that trials dominate, 0 to 1."""
        return hypervolume(self.minimised(trials), self.nadir, self.ideal)

    def reconstructions(self, trial: TrialRecord) -> Path:
        """Return the path of a trial's reconstructions: uint8 `.npy`, (images, channels, h, w)."""
        return self.folder / "artefacts" / trial.digest / RECONSTRUCTIONS

    def prior_samples(self, trial: TrialRecord) -> Path:
        """Return the path of what a trial decodes from N(0, 1), of the same type and shape."""
        return self.folder / "artefacts" / trial.digest / PRIOR_SAMPLES

    @property
    def samples(self) -> Path:
        """Path of the images that every trial reconstructs, of the same shape and type."""
        return self.folder / "artefacts" / "samples.npy"
