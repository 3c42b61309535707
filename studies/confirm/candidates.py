"""The models that may be best: which ones to train again, most promising first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from nas.objectives import Objective, nondominated
from nas.search.axis_features import AxisFeatures
from nas.search.surrogate import ENOUGH, smoothed
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.record.comparison import found_learned, ranked
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import front_found, spread

MOST_POINTS = 1000
"""Maximum number of candidates in the fit: its time grows with their third power."""

Fitted = Mapping[int, float]
"""The fitted loss of each trained candidate, by the trial's number."""


def badness(objective: Objective, value: float) -> float:
    """Return a number that is lower the better a value of the objective is."""
    return objective.sign * value


def fitted_losses(study: StudyRecord, space: SearchSpace) -> Fitted:
    """Return the losses by the surrogate of the search: the posterior mean at each candidate.

    A fit to all candidates smooths the luck of single trainings. It is made of the losses that the
    search observed, so it does not change during a confirmation.

    Returns:
        Trial's number -> loss; empty where there are too few candidates for a fit. Of more than
        `MOST_POINTS` candidates, an even selection, half of it from the front.
    """
    name, trials = study.trained[0].name, _fittable(study)
    if len(trials) < ENOUGH:
        return {}
    features = AxisFeatures(space)([dict(trial.assignment) for trial in trials])
    observed = [trial.observed(name) for trial in trials]
    fitted = smoothed(features, np.array(observed)).tolist()
    return dict(zip((trial.number for trial in trials), fitted, strict=True))


def _fittable(study: StudyRecord) -> list[TrialRecord]:
    trials = [trial for trial in found_learned(study) if trial.assignment]
    if len(trials) <= MOST_POINTS:
        return trials
    kept = (*spread(front_found(study), MOST_POINTS // 2), *spread(trials, MOST_POINTS // 2))
    chosen = {trial.number for trial in kept}
    return [trial for trial in trials if trial.number in chosen]


def promising(study: StudyRecord, fitted: Fitted) -> list[TrialRecord]:
    """Return the candidates that may be best, most promising first.

    They are the front as observed and the front by the fitted losses. In turn the next by each of
    three orders is taken: by the comparison with the first reference, by loss, by fitted loss.
    """
    observed = list(front_found(study))
    loss = study.trained[0]
    reference = next(iter(study.yardsticks.values()), None)
    orders = [
        ranked(study, observed, reference) if reference else observed,
        sorted(observed, key=lambda trial: badness(loss, trial.objectives[loss.name])),
        sorted(_front_by(study, fitted), key=lambda trial: badness(loss, fitted[trial.number])),
    ]
    in_turn = chain.from_iterable(zip_longest(*orders))
    return list({trial.number: trial for trial in in_turn if trial is not None}.values())


def asked_for(study: StudyRecord, numbers: Sequence[int]) -> list[TrialRecord]:
    """Return the complete trials of these numbers, without references.

    Raises:
        UserError: a number names no complete trial.
    """
    complete = {trial.number: trial for trial in study.complete}
    for number in numbers:
        if number not in complete:
            over = next((t.reason for t in study.trials if t.number == number and t.trained), None)
            raise UserError(
                f"--trial {number}: study {study.name!r} has no complete trial {number}"
                f"{f' within its limits ({over})' if over else ''}"
            )
    asked = [complete[number] for number in dict.fromkeys(numbers)]
    return [trial for trial in asked if not trial.reference]


def require_training(study: StudyRecord) -> None:
    """Refuse a study that trains nothing; raise `UserError`."""
    if not study.trained:
        raise UserError(
            f"study {study.name!r} has no objective that needs training: there is no loss to "
            "confirm"
        )


def _front_by(study: StudyRecord, fitted: Fitted) -> list[TrialRecord]:
    """Return the front of the candidates that have fitted losses, with these losses."""
    trials = [trial for trial in found_learned(study) if trial.number in fitted]
    if not trials:
        return []
    name = study.trained[0].name
    points = study.minimised(_with_value(trial, name, fitted[trial.number]) for trial in trials)
    return [trial for trial, kept in zip(trials, nondominated(points), strict=True) if kept]


def _with_value(trial: TrialRecord, name: str, value: float) -> TrialRecord:
    objectives = {**trial.objectives, name: value}
    return replace(trial, findings=replace(trial.findings, objectives=objectives))
