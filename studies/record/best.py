"""The best trial of a study within limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nas.objectives import OBJECTIVES, TRAINED_OBJECTIVE, sign_of
from search_spaces.errors import UserError, nearest
from search_spaces.numbers import at_least, at_most
from studies.record.formats import noun
from studies.record.records import StudyRecord, TrialRecord


def best_trial(
    record: StudyRecord,
    by: str | None,
    caps: Mapping[str, float],
    named: Callable[[str], str] = str,
) -> TrialRecord:
    """Return the best trial that has learned and is within limits.

    Args:
        record: The study.
        by: The value to be best in, by name; None is the study's first objective.
        caps: Limits by name: the largest value, or the smallest one of what is maximised.
        named: Returns what the caller calls the argument `by`, or the limit of this name.

    Raises:
        UserError: no trial qualifies, or the study has not recorded such a value.
    """
    by = by or record.objective_names[0]
    if not record.complete:
        raise UserError(f"study {record.name!r} has no complete trial to choose from")
    if not record.learned:
        raise UserError(f"no model of study {record.name!r} has learned: {_why_none(record)}")
    known = sorted({name for trial in record.complete for name in _values(trial)})
    if by not in known:
        raise UserError(
            f"{named('by')} {by}: the study did not record it{nearest(by, known)}; it has "
            f"{', '.join(known)}"
        )
    for cap in caps:
        if cap not in known:
            raise UserError(f"{named(cap)}: the study did not record it; it has {', '.join(known)}")
    usable = [t for t in record.learned if {by, *caps} <= _values(t).keys()]
    if not usable:
        raise UserError(
            f"no model of study {record.name!r} has all of {', '.join(dict.fromkeys([by, *caps]))}"
        )
    fitting = [t for t in usable if all(_excess(t, n, cap) <= 0 for n, cap in caps.items())]
    if not fitting:
        nearest_one = min(usable, key=lambda t: max(_excess(t, n, c) for n, c in caps.items()))
        values = ", ".join(f"{noun(OBJECTIVES[n])} {_reached(nearest_one, n)}" for n in caps)
        raise UserError(
            f"no model of study {record.name!r} is within these limits; the nearest, "
            f"{nearest_one.name}, has {values}"
        )
    # A loss of one training may be low by luck: prefer confirmed models where any fits.
    sure = [t for t in fitting if t.confirmed and not t.reference] if _is_learned(by) else []
    return min(sure or fitting, key=lambda trial: sign_of(by) * _values(trial)[by])


def _values(trial: TrialRecord) -> dict[str, float]:
    """Return the recorded values of all objectives, also of those that the study does not have."""
    metrics = {name: value for name, value in trial.metrics.items() if name in OBJECTIVES}
    return {**metrics, **trial.objectives}


def _excess(trial: TrialRecord, name: str, cap: float) -> float:
    """Return how far a value is beyond a limit, in units of the limit's distance from the ideal."""
    objective = OBJECTIVES[name]
    room = max(objective.sign * (cap - objective.ideal), 1e-12)
    return objective.sign * (_values(trial)[name] - cap) / room


def _reached(trial: TrialRecord, name: str) -> str:
    """Return a limit that the trial's value meets."""
    value = _values(trial)[name]
    return at_least(value) if sign_of(name) > 0 else at_most(value)


def _why_none(record: StudyRecord) -> str:
    """Return why no model has learned, by the one with the lowest loss, and what to do."""
    lowest = min(record.complete, key=lambda trial: trial.objectives[TRAINED_OBJECTIVE])
    return (
        f"the best of them, {lowest.name}, has not because {record.unlearned(lowest)}; train with "
        "more epochs (--epochs) or more images (--images), in a study of another name"
    )


def _is_learned(name: str) -> bool:
    return name in OBJECTIVES and OBJECTIVES[name].cost == "training"
