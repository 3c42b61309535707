"""How one trial compares with a reference: the factors, what is certain of them, who dominates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.objectives import dominates
from search_spaces.references import REFERENCES
from studies.record.records import StudyRecord, TrialRecord

LATENCY = "latency_ms"
_ANCHOR = next(iter(REFERENCES))
"""The reference that every trial's latency is measured in turn with."""


@dataclass(frozen=True)
class Comparison:
    """A trial against a reference.

    Attributes:
        factors: How many times better the trial is, by objective; below 1 it is worse.
        verdicts: 1 better, -1 worse, 0 equal or, where there are intervals, too close to tell.
        dominates: No worse in all objectives and better in one, by both the recorded values and
            the verdicts.
        contended: Something else disturbed a latency of the two.
    """

    factors: Mapping[str, float]
    verdicts: Mapping[str, int]
    dominates: bool
    contended: bool

    @property
    def better(self) -> int:
        """In how many objectives the trial is better."""
        return sum(verdict > 0 for verdict in self.verdicts.values())

    @property
    def mean_factor(self) -> float:
        """Geometric mean of the factors: one number for how much better a trial is."""
        return math.exp(sum(map(math.log, self.factors.values())) / len(self.factors))

    def tied(self, name: str) -> bool:
        """Whether the values differ, but not by more than their measurement is certain of."""
        return self.verdicts[name] == 0 and self.factors[name] != 1


def compare(study: StudyRecord, trial: TrialRecord, reference: TrialRecord) -> Comparison:
    """Compare a complete trial with a complete reference.

    Machines change speed within minutes. A latency's factor is therefore the ratio that was
    measured with both models taking turns; where these two did not, the quotient of their ratios to
    `original`; and the quotient of the recorded latencies only where there are no such ratios.
    Where its 95 % interval includes 1, the two are tied; so are other values whose intervals meet.
    """
    names, ours, theirs = study.objective_names, trial.objectives, reference.objectives
    factors = {name: theirs[name] / ours[name] for name in names}
    verdicts = {name: _sign(*_bounds(name, trial, reference)) for name in names}
    paired = _paired_factor(trial, reference) if LATENCY in names else None
    if paired:
        factors[LATENCY], low, high = paired
        verdicts[LATENCY] = _sign(low, high)
    certain = min(verdicts.values()) >= 0 and max(verdicts.values()) > 0
    contended = LATENCY in names and (trial.contended or reference.contended)
    return Comparison(factors, verdicts, certain and dominates(ours, theirs, names), contended)


def found(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the fully evaluated architectures that are not reference points."""
    return tuple(trial for trial in study.complete if trial.reference is None)


def dominators(study: StudyRecord, reference: TrialRecord) -> tuple[TrialRecord, ...]:
    """Return the found architectures that dominate `reference`."""
    names, theirs = study.objective_names, reference.objectives
    # Most of a large study is ruled out without comparing latencies with care.
    possible = (t for t in found(study) if dominates(t.objectives, theirs, names))
    return tuple(t for t in possible if compare(study, t, reference).dominates)


def champion(study: StudyRecord, reference: TrialRecord) -> TrialRecord | None:
    """Return the found architecture that beats `reference` in most objectives and by most.

    A dominating one comes before all others; then the number of objectives in which it is better
    decides, then the geometric mean of its factors. None where nothing was found.
    """
    return next(iter(ranked(study, found(study), reference)), None)


def ranked(
    study: StudyRecord, trials: Sequence[TrialRecord], reference: TrialRecord
) -> list[TrialRecord]:
    """Return the trials, those that beat `reference` in most objectives and by most first."""

    def rank(trial: TrialRecord) -> tuple[bool, int, float]:
        compared = compare(study, trial, reference)
        return compared.dominates, compared.better, compared.mean_factor

    return sorted(trials, key=rank, reverse=True)


def _paired_factor(trial: TrialRecord, reference: TrialRecord) -> tuple[float, float, float] | None:
    """How many times faster the trial is, with the bounds of the interval; None: not recorded.

    The bounds of a quotient are those of the extremes: wider than 95 %, never narrower.
    """
    if direct := _ratio(trial, reference.reference or ""):
        return 1 / direct[0], 1 / direct[2], 1 / direct[1]
    ours, theirs = _ratio(trial, _ANCHOR), _ratio(reference, _ANCHOR)
    if ours is None or theirs is None:
        return None
    return theirs[0] / ours[0], theirs[1] / ours[2], theirs[2] / ours[1]


def _ratio(trial: TrialRecord, reference: str) -> tuple[float, float, float] | None:
    name = f"latency_over_{reference}"
    values = [trial.metrics.get(f"{name}{end}") for end in ("", "_low", "_high")]
    middle, low, high = values
    return None if middle is None or low is None or high is None else (middle, low, high)


def _bounds(name: str, trial: TrialRecord, reference: TrialRecord) -> tuple[float, float]:
    """Least and greatest factor that the recorded intervals allow; a value alone has no width."""
    ours, theirs = (
        one.intervals.get(name, (one.objectives[name],) * 2) for one in (trial, reference)
    )
    return theirs[0] / ours[1], theirs[1] / ours[0]


def _sign(low: float, high: float) -> int:
    """Where an interval of a factor lies: 1 above one, -1 below, 0 around it."""
    return int(low > 1) - int(high < 1)
