"""One evaluation that runs for this driver, and what follows from what it has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE
from studies.record.records import State, TrialRecord


@dataclass
class Evaluation:
    """One that runs for this driver.

    Attributes:
        trial: What is evaluated, as it was when the evaluation began.
        findings: What is known by now.
        ending: State and reason, once it has been decided to end it.
        lost: Whether its trial is another driver's by now.
    """

    trial: TrialRecord
    findings: Findings
    ending: tuple[State, str] | None = None
    lost: bool = False

    def verdict(self, objectives: Iterable[str]) -> tuple[State, str | None]:
        """Return state and reason of an evaluation that was not ended before its time."""
        if self.ending is not None:
            return self.ending
        for name in objectives:
            value = self.findings.objectives.get(name)
            if value is None or not np.isfinite(value):
                return "failed", f"{name} is {value}"
        return "complete", None


def known_of(trial: TrialRecord) -> Findings | None:
    """Return what an evaluation that ended before its time had found, but for its training."""
    if not trial.objectives:
        return None
    return replace(
        trial.findings,
        step="device",
        objectives={k: v for k, v in trial.objectives.items() if k != TRAINED_OBJECTIVE},
        history=(),
    )
