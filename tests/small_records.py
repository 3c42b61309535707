"""Records of studies written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.objectives import select_objectives
from search_spaces.references import REFERENCES
from studies.record.records import State, StudyRecord, TrialRecord

NAMES = ("reconstruction_loss", "params")
ARCHITECTURE = REFERENCES["original"]


def trial(
    number: int,
    loss: float | None,
    params: float,
    reference: str | None = None,
    state: State = "complete",
    assignment: Mapping[str, Any] | None = None,
    duration_s: float = 0.0,
) -> TrialRecord:
    values = {"params": params} | ({} if loss is None else {"reconstruction_loss": loss})
    history = [{"epoch": 1.0, "train_loss": 1.0, "validation_loss": 1.0, "duration_s": duration_s}]
    return TrialRecord(
        number=number,
        state=state,
        digest=f"{number:012d}",
        architecture=ARCHITECTURE,
        reference=reference,
        objectives=values,
        assignment=assignment or {},
        history=history if duration_s else (),
    )


def study(*trials: TrialRecord) -> StudyRecord:
    return StudyRecord("s", select_objectives(NAMES), trials, {}, {}, Path("nowhere"))
