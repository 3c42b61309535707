"""What a study evaluates before anything new is proposed."""

from __future__ import annotations

from collections.abc import Iterable

from search_spaces.references import REFERENCES
from studies.record.records import TrialRecord


class Backlog:
    """Trials that were left unfinished, and references that are missing.

    Args:
        unfinished: Trials that an earlier run left running or stopped early.
        trials: All trials of the study.

    Attributes:
        left: Trials to be finished, in this order.
        paused: Trainings that were stopped early and may yet be called back, by digest.
    """

    def __init__(self, unfinished: Iterable[TrialRecord], trials: Iterable[TrialRecord]) -> None:
        self.left: list[TrialRecord] = []
        self.paused: dict[str, TrialRecord] = {}
        self._references = {trial.reference for trial in trials}
        for trial in unfinished:
            self.add(trial)

    def add(self, trial: TrialRecord) -> None:
        """Take over a trial that somebody left unfinished."""
        if trial.state == "stopped":
            self.paused[trial.digest] = trial
        elif trial.state == "running":
            self.left.append(trial)

    def add_reference(self, name: str | None) -> None:
        """Take note that a reference has been begun."""
        self._references.add(name)

    def missing_reference(self) -> str | None:
        """Return the name of the first reference that nobody has begun."""
        return next((name for name in REFERENCES if name not in self._references), None)
