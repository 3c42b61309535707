"""An evaluation that this driver runs, and the trial's state that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from nas.findings import Findings
from nas.objectives import by_factor, trained_objectives
from studies.record.records import State, TrialRecord


@dataclass
class Evaluation:
    """An evaluation that this driver runs.

    Attributes:
        trial: The trial as it was when the evaluation started.
        findings: The findings so far.
        ending: State and reason, once the runner has decided to end the evaluation.
        lost: Whether another driver has taken over the trial.
    """

    trial: TrialRecord
    findings: Findings
    ending: tuple[State, str] | None = None
    lost: bool = False

    def verdict(self, objectives: Iterable[str]) -> tuple[State, str | None]:
        """Return the trial's state and reason after the end of the evaluation."""
        if self.ending is not None:
            return self.ending
        for name in objectives:
            value = self.findings.objectives.get(name)
            if value is None or not np.isfinite(value) or (value <= 0 and by_factor(name)):
                return "failed", f"{name} is {value}"
        return "complete", None


def known_of(trial: TrialRecord) -> Findings | None:
    """Return an earlier evaluation's findings without its training; None if it had no values."""
    if not trial.objectives:
        return None
    trained = trained_objectives(trial.objectives)
    costs = {name: value for name, value in trial.objectives.items() if name not in trained}
    return replace(trial.findings, step="device", objectives=costs, history=())
