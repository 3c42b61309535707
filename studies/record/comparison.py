"""Compare a trial with a reference: factors and differences, their certainty, domination."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nas.objectives import Objective, dominates, measures_latency, set_up_of
from search_spaces.references import REFERENCES
from studies.record.records import StudyRecord, TrialRecord

_ANCHOR = next(iter(REFERENCES))
"""The reference that is measured in the same rounds as every trial."""


@dataclass(frozen=True)
class Comparison:
    """The result of comparing a trial with a reference.

    Attributes:
        factors: By objective, how many times better the trial is; below 1 it is worse. Objectives
            that are compared by differences have none.
        verdicts: By objective, 1 better, -1 worse, 0 equal or tied.
        dominates: Whether the trial is no worse in all objectives and better in at least one, both
            by the recorded values and by the verdicts, and both models have learned.
        contended: Whether other work disturbed a latency measurement of the two.
        differences: By objective without a factor, how much better the trial is, in its unit;
            below 0 it is worse.
    """

    factors: Mapping[str, float]
    verdicts: Mapping[str, int]
    dominates: bool
    contended: bool
    differences: Mapping[str, float] = field(default_factory=dict)

    def gain(self, name: str) -> float:
        """Return the factor or the difference of an objective."""
        return self.differences[name] if name in self.differences else self.factors[name]

    @property
    def better(self) -> int:
        """Number of objectives in which the trial is better."""
        return sum(verdict > 0 for verdict in self.verdicts.values())

    @property
    def worse(self) -> int:
        """Number of objectives in which the trial is worse."""
        return sum(verdict < 0 for verdict in self.verdicts.values())

    @property
    def mean_factor(self) -> float:
        """Geometric mean of the factors; 1 if there are none."""
        return math.exp(sum(map(math.log, self.factors.values())) / max(len(self.factors), 1))

    def tied(self, name: str) -> bool:
        """Return whether the values of an objective differ, but within their intervals."""
        equal = 0 if name in self.differences else 1
        return self.verdicts[name] == 0 and self.gain(name) != equal


def compare(study: StudyRecord, trial: TrialRecord, reference: TrialRecord) -> Comparison:
    """Compare a complete trial with a complete reference.

    The speed of a machine changes within minutes. A latency's factor is therefore the ratio that
    was measured with both models in the same rounds. If they were not measured together, it is the
    quotient of their ratios to `original`, and without such ratios the quotient of the recorded
    latencies. If the factor's 95 % interval includes 1, the two are tied; other values are tied if
    their intervals overlap.

    After the confirmation of a study, losses are compared by a test of their difference, corrected
    for the number of comparisons (`StudyRecord.certain`); they are tied where it does not exceed
    the seed noise. A trial then dominates a reference only if its loss is certainly lower. Before,
    each loss is that of one training, and is compared as it is.
    """
    names, ours, theirs = study.objective_names, trial.objectives, reference.objectives
    gains = {o.name: o.gain(ours[o.name], theirs[o.name]) for o in study.objectives}
    differences = {o.name: gains.pop(o.name) for o in study.objectives if not o.by_factor}
    factors = gains
    verdicts = {o.name: _verdict(o, trial, reference) for o in study.objectives}
    for name in (n for n in names if set_up_of(n) is not None):
        if paired := _paired_factor(trial, reference, set_up_of(name)):
            factors[name], low, high = paired
            verdicts[name] = _sign(low, high)
    for one in (objective for objective in study.trained if objective.name in study.noises):
        sure = (one.name, trial.number, reference.reference) in study.certain
        gained = one.sign * (theirs[one.name] - ours[one.name])
        verdicts[one.name] = (1 if gained > 0 else -1) if sure else 0
    certain = min(verdicts.values()) >= 0 and max(verdicts.values()) > 0
    certain = certain and all(verdicts[name] > 0 for name in study.noises)
    contended = measures_latency(names) and (trial.contended or reference.contended)
    dominating = certain and dominates(ours, theirs, names)
    learned = not (study.unlearned(trial) or study.unlearned(reference))
    return Comparison(factors, verdicts, dominating and learned, contended, differences)


def found(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the complete trials that are not reference models."""
    return tuple(trial for trial in study.complete if trial.reference is None)


def found_learned(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the trials that have learned and are not reference models."""
    return tuple(trial for trial in study.learned if trial.reference is None)


def dominators(study: StudyRecord, reference: TrialRecord) -> tuple[TrialRecord, ...]:
    """Return the complete trials that dominate `reference`."""
    names, theirs = study.objective_names, reference.objectives
    # A cheap test first: it rules out most trials of a large study.
    possible = (t for t in found_learned(study) if dominates(t.objectives, theirs, names))
    return tuple(t for t in possible if compare(study, t, reference).dominates)


def champion(study: StudyRecord, reference: TrialRecord) -> TrialRecord | None:
    """Return the trial that compares best with `reference`; None if no trial has learned.

    The order is: trials that dominate it first, then confirmed ones, then by the number of
    objectives in which a trial is better, then by that in which it is worse, then by the geometric
    mean of its factors, then by its differences, in the order of the objectives.
    """
    return next(iter(ranked(study, found_learned(study), reference)), None)


def ranked(
    study: StudyRecord, trials: Sequence[TrialRecord], reference: TrialRecord
) -> list[TrialRecord]:
    """Return the trials in the order of `champion`, best first."""

    def rank(trial: TrialRecord) -> tuple[float, ...]:
        one = compare(study, trial, reference)
        gains = one.mean_factor, *one.differences.values()
        return one.dominates, trial.confirmed, one.better, -one.worse, *gains

    return sorted(trials, key=rank, reverse=True)


def _paired_factor(
    trial: TrialRecord, reference: TrialRecord, setup: str | None
) -> tuple[float, float, float] | None:
    """Return how many times faster the trial is: (factor, low, high); None if not recorded.

    The bounds of a quotient combine the extremes of both intervals: the result covers at least
    95 %.
    """
    if direct := _ratio(trial, reference.reference or "", setup):
        return 1 / direct[0], 1 / direct[2], 1 / direct[1]
    ours, theirs = _ratio(trial, _ANCHOR, setup), _ratio(reference, _ANCHOR, setup)
    if ours is None or theirs is None:
        return None
    return theirs[0] / ours[0], theirs[1] / ours[2], theirs[2] / ours[1]


def _ratio(
    trial: TrialRecord, reference: str, setup: str | None
) -> tuple[float, float, float] | None:
    name, end = f"latency_over_{reference}", f":{setup}" if setup else ""
    values = [trial.metrics.get(f"{name}{bound}{end}") for bound in ("", "_low", "_high")]
    middle, low, high = values
    return None if middle is None or low is None or high is None else (middle, low, high)


def _verdict(objective: Objective, trial: TrialRecord, reference: TrialRecord) -> int:
    """Return the verdict by the recorded intervals of both trials."""
    name = objective.name
    ours, theirs = (
        one.intervals.get(name, (one.objectives[name],) * 2) for one in (trial, reference)
    )
    ends = objective.gain(ours[1], theirs[0]), objective.gain(ours[0], theirs[1])
    return _sign(min(ends), max(ends), equal=1 if objective.by_factor else 0)


def _sign(low: float, high: float, equal: float = 1) -> int:
    """Return 1 if an interval lies above `equal`, -1 if below, 0 if it includes it."""
    return int(low > equal) - int(high < equal)
