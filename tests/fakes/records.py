"""Records of two objectives written by hand, from which other numbers are derived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.findings import Findings
from nas.objectives import select_objectives
from search_spaces.references import REFERENCES
from studies.record.records import State, StudyRecord, TrialRecord
from tests.fakes.findings import epoch

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
    history = [epoch(1, loss or 1.0, duration_s=duration_s)] if duration_s else []
    return TrialRecord(
        number=number,
        state=state,
        digest=f"{number:012d}",
        architecture=ARCHITECTURE,
        reference=reference,
        assignment=assignment or {},
        findings=Findings("done", values, history=history),
    )


def study(*trials: TrialRecord) -> StudyRecord:
    return StudyRecord("s", select_objectives(NAMES), trials, {}, {}, Path("nowhere"))


def with_findings(trial: TrialRecord, **changes: Any) -> TrialRecord:
    """Return the trial with some of its findings changed."""
    return replace(trial, findings=replace(trial.findings, **changes))
