"""Trials and references that a study evaluates before the sampler proposes candidates."""

from __future__ import annotations

from collections.abc import Iterable

from search_spaces.references import REFERENCES
from studies.record.records import TrialRecord


class Backlog:
    """Unfinished trials, and references that have not been started.

    Args:
        unfinished: Trials that an earlier run left running or stopped early.
        trials: All trials of the study.

    Attributes:
        left: Trials to finish, in this order.
        paused: Trials that were stopped early and may be resumed, by digest.
    """

    def __init__(self, unfinished: Iterable[TrialRecord], trials: Iterable[TrialRecord]) -> None:
        self.left: list[TrialRecord] = []
        self.paused: dict[str, TrialRecord] = {}
        self._references = {trial.reference for trial in trials}
        for trial in unfinished:
            self.add(trial)

    def add(self, trial: TrialRecord) -> None:
        """Add a trial that another run or driver left unfinished."""
        if trial.state == "stopped":
            self.paused[trial.digest] = trial
        elif trial.state == "running":
            self.left.append(trial)

    def add_reference(self, name: str | None) -> None:
        """Record that a reference has been started."""
        self._references.add(name)

    def missing_reference(self) -> str | None:
        """Return the name of the first reference that no driver has started, or None."""
        return next((name for name in REFERENCES if name not in self._references), None)
