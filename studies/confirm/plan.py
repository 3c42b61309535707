"""Which training a confirmation does next: a function of the record, so that it can be resumed.

Every chosen model is first trained until two trainings of it count. Then seeds are added where the
order at the top is not sure: to the best model, to those whose loss is tied with the best, and to
models and references that are tied with each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.space import SearchSpace
from studies.confirm.candidates import (
    Fitted,
    badness,
    fitted_losses,
    promising,
)
from studies.record.records import StudyRecord, TrialRecord

FIRST = 2
"""Trainings that count, of each model, before any model gets more: two show the noise."""

Training = tuple[str, int]
"""A training: the digest of its architecture, and its seed."""


@dataclass(frozen=True)
class Plan:
    """What a confirmation may do.

    Attributes:
        seeds: Largest number of trainings that count of each model. Of a candidate further ones
            count, of a reference that of the search too; a reference has at least two.
        top: Largest number of models, besides the references.
        first: Number of trainings that each chosen model gets in any case.
        numbers: Numbers of the trials to confirm; empty for the most promising ones.
        references: Names of the references to train again.
        fitted: Losses by the surrogate, by which promising candidates are chosen too.
    """

    seeds: int
    top: int
    first: int
    numbers: tuple[int, ...]
    references: tuple[str, ...]
    fitted: Fitted

    def next(
        self, study: StudyRecord, running: Collection[Training] = ()
    ) -> tuple[TrialRecord, int] | None:
        """Return the next training, as trial and seed; None if there is nothing left to do.

        Args:
            study: The study as recorded so far.
            running: The trainings that have begun and are not recorded yet.
        """
        models = self._models(study, running)
        counts = {trial.number: _count(trial, running) for trial in models}
        missing = [trial for trial in models if counts[trial.number] < self._most_of(trial)]
        behind = [trial for trial in missing if counts[trial.number] < self.first]
        tied = {trial.number for trial in _contested(study, models)} if missing else set()
        wanted = behind or [trial for trial in missing if trial.number in tied]
        if not wanted:
            return None
        trial = min(wanted, key=lambda one: counts[one.number])
        return trial, _next_seed(study, trial, running)

    def _most_of(self, trial: TrialRecord) -> int:
        return max(self.seeds, FIRST) if trial.reference else self.seeds

    def most(self, study: StudyRecord) -> int:
        """Return the largest number of trainings of the whole confirmation."""
        found = len(self.numbers) or min(self.top, sum(not t.reference for t in study.complete))
        further = max(self.seeds, FIRST) - 1  # of a reference, the search's counts
        return found * self.seeds + len(self._references(study)) * further

    def _models(self, study: StudyRecord, running: Collection[Training]) -> list[TrialRecord]:
        """Return the references and the chosen candidates, those that have begun first."""
        references = self._references(study)
        if self.numbers:
            return references + [t for t in study.complete if t.number in self.numbers]
        candidates = [trial for trial in study.complete if not trial.reference]
        begun = [trial for trial in candidates if _seeds(trial, running)]
        room = max(0, self.top - len(begun))
        known = {trial.number for trial in begun}
        others = [t for t in promising(study, self.fitted) if t.number not in known] if room else []
        return [*references, *begun, *others[:room]]

    def _references(self, study: StudyRecord) -> list[TrialRecord]:
        return [one for name, one in study.references.items() if name in self.references]


def best_models(study: StudyRecord, seeds: int, top: int, space: SearchSpace) -> Plan:
    """Return the plan of a study that confirms its best models and all references at its end."""
    fitted = fitted_losses(study, space)
    return Plan(seeds, top, FIRST, (), tuple(study.references), fitted)


def _contested(study: StudyRecord, models: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the models whose order is not sure; nothing if the best is sure.

    Comparisons are not corrected for their number here: they only distribute seeds.
    """
    noise, found = study.noise, [trial for trial in models if not trial.reference]
    if noise is None or not found:
        return list(models)
    loss = study.trained[0]
    means = {trial.number: trial.mean_of(loss.name) for trial in models}
    best = min(found, key=lambda trial: badness(loss, trial.objectives[loss.name]))
    pairs = [(best, other) for other in models if other is not best]
    pairs += [(one, other) for one in found for other in models if other.reference]
    tied = {
        trial.number
        for pair in pairs
        if not noise.differ(*(means[trial.number] for trial in pair))
        for trial in pair
    }
    return [trial for trial in models if trial.number in tied]


def _seeds(trial: TrialRecord, running: Collection[Training]) -> set[int]:
    begun = {seed for digest, seed in running if digest == trial.digest}
    return begun | {run.seed for run in trial.runs}


def _count(trial: TrialRecord, running: Collection[Training]) -> int:
    """Return the number of trainings that count: of a reference, that of the search does too."""
    return len(_seeds(trial, running)) + (trial.reference is not None)


def _next_seed(study: StudyRecord, trial: TrialRecord, running: Collection[Training]) -> int:
    """Return the first seed after that of the search which this model was not trained with."""
    training: Mapping[str, int] = study.config["training"]
    used, seed = _seeds(trial, running), int(training.get("seed", 0)) + 1
    while seed in used:
        seed += 1
    return seed % 2**32
