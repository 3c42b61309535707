"""Values derived from all trials of a study, updated with each new trial."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nas.floors import Floors
from nas.objectives import Objective, minimised, nondominated
from studies.record.learning import unlearned
from studies.record.trial import TrialRecord


@dataclass(frozen=True)
class Standing:
    """The values derived from the trials of a study.

    Attributes:
        objectives: The study's objectives, in order.
        trials: Its trials, in order of their numbers.
        searched: Number of trials that count towards `search.trials`.
        complete: The complete trials, including references.
        references: The complete references, by name.
        learned: The complete trials that have learned, or that were not trained.
        front: The non-dominated ones of `learned`, the best in the first objective first.
        floors: The losses by which `learned` is judged; None if they are not known.
    """

    objectives: tuple[Objective, ...]
    trials: tuple[TrialRecord, ...]
    searched: int
    complete: tuple[TrialRecord, ...]
    references: dict[str, TrialRecord]
    learned: tuple[TrialRecord, ...]
    front: tuple[TrialRecord, ...]
    floors: Floors | None = None

    @classmethod
    def of(
        cls,
        objectives: tuple[Objective, ...],
        trials: tuple[TrialRecord, ...],
        floors: Floors | None = None,
    ) -> Standing:
        """Compute the values from all trials."""
        complete = tuple(trial for trial in trials if trial.state == "complete")
        learned = tuple(trial for trial in complete if not unlearned(trial, floors))
        return cls(
            objectives,
            trials,
            searched=sum(trial.searched for trial in trials),
            complete=complete,
            references=_references(complete),
            learned=learned,
            front=_front(objectives, learned),
            floors=floors,
        )

    def with_trial(self, trial: TrialRecord) -> Standing:
        """Return the values with this trial added, or in place of its earlier version.

        An open trial of its architecture is left out. The trial is compared only with the front, so
        that the time does not grow with the study.
        """
        before, trials = find(self.trials, trial.number), put(_without_open(self, trial), trial)
        if before is not None and before.state == "complete":
            return Standing.of(self.objectives, trials, self.floors)
        searched = self.searched + trial.searched - (before is not None and before.searched)
        if trial.state != "complete":
            return replace(self, trials=trials, searched=searched)
        references = self.references
        if trial.reference:
            references = _references([*references.values(), trial])
        grown = replace(
            self,
            trials=trials,
            searched=searched,
            complete=put(self.complete, trial),
            references=references,
        )
        if unlearned(trial, self.floors):
            return grown
        return replace(
            grown,
            learned=put(self.learned, trial),
            front=_front(self.objectives, [*self.front, trial]),
        )


def points(
    objectives: Iterable[Objective], trials: Sequence[TrialRecord]
) -> npt.NDArray[np.float64]:
    """Return the objective values of `trials`, shape (trials, objectives)."""
    names = [objective.name for objective in objectives]
    rows = [[trial.objectives[name] for name in names] for trial in trials]
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), len(names))


def find(trials: Sequence[TrialRecord], number: int) -> TrialRecord | None:
    """Return the trial of this number, or None; `trials` are in order of their numbers."""
    place = _place(trials, number)
    return trials[place] if _is_at(trials, place, number) else None


def put(trials: tuple[TrialRecord, ...], trial: TrialRecord) -> tuple[TrialRecord, ...]:
    """Return the trials with this one inserted, or in place of the one of the same number."""
    place = _place(trials, trial.number)
    return (*trials[:place], trial, *trials[place + _is_at(trials, place, trial.number) :])


def _without_open(standing: Standing, trial: TrialRecord) -> tuple[TrialRecord, ...]:
    """Return the trials without an open one of the architecture that this trial evaluates."""
    trials = standing.trials
    replaced = [t.number for t in trials if t.state == "open" and t.digest == trial.digest]
    return tuple(t for t in trials if t.number not in replaced) if replaced else trials


def _references(complete: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    ordered = sorted(complete, key=lambda trial: trial.number)
    return {trial.reference: trial for trial in ordered if trial.reference}


def _front(
    objectives: tuple[Objective, ...], trials: Sequence[TrialRecord]
) -> tuple[TrialRecord, ...]:
    names = [objective.name for objective in objectives]
    kept = nondominated(minimised(points(objectives, trials), names))
    members = [trial for trial, keep in zip(trials, kept, strict=True) if keep]
    first, sign = names[0], objectives[0].sign
    return tuple(sorted(members, key=lambda trial: (sign * trial.objectives[first], trial.number)))


def _place(trials: Sequence[TrialRecord], number: int) -> int:
    return bisect_left(trials, number, key=lambda trial: trial.number)


def _is_at(trials: Sequence[TrialRecord], place: int, number: int) -> bool:
    return place < len(trials) and trials[place].number == number
