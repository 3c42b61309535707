"""Between Optuna's trials, as they are stored, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.record.records import State, TrialRecord

OWNER = "owner"
"""The attribute that names the driver a trial belongs to, where several may work on a study."""

_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "rejected",
    TrialState.FAIL: "failed",
}


def new_trial(
    architecture: Architecture,
    assignment: Mapping[str, Any] | None,
    space: SearchSpace,
    reference: str | None,
    repeats: int,
    owner: str | None,
) -> FrozenTrial:
    """Return a trial to be stored as running, whole: no crash can leave a part of it."""
    candidate = {
        "digest": architecture.digest,
        "architecture": architecture.to_dict(),
        "assignment": dict(assignment or {}),
        "reference": reference,
        "repeats": repeats,
    }
    return create_trial(
        state=TrialState.RUNNING,
        params=space.to_optuna(dict(assignment)) if assignment else {},
        distributions=space.distributions(dict(assignment)) if assignment else {},
        user_attrs={"candidate": candidate, **({OWNER: owner} if owner else {})},
    )


def state_of(trial: FrozenTrial) -> State:
    """Return what became of a trial."""
    state = _STATES.get(trial.state, "running")
    if trial.user_attrs.get("stopped") and state in ("running", "rejected"):
        return "stopped"
    return state


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Return our record of a stored trial."""
    candidate = trial.user_attrs["candidate"]
    return TrialRecord(
        number=trial.number,
        state=state_of(trial),
        digest=candidate["digest"],
        architecture=Architecture.model_validate(candidate["architecture"]),
        assignment=candidate["assignment"],
        reference=candidate["reference"],
        repeats=candidate["repeats"],
        reason=trial.user_attrs.get("reason"),
        findings=Findings.from_dict(trial.user_attrs.get("findings", {})),
    )
