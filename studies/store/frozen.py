"""Convert between Optuna's stored trials and this project's trial records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.record.records import State, TrialRecord
from studies.store.attributes import trial_attributes

OWNER = "owner"
"""Attribute with the name of the driver that owns a trial, where drivers share a study."""

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
    """Return a running trial with all its attributes, so that one write stores it.

    Args:
        architecture: The candidate.
        assignment: Its choice on each axis; None outside the space.
        space: The search space.
        reference: Name of the reference model that it is, or None.
        repeats: Number of proposals of known architectures just before it.
        owner: Name of the driver that owns it; None for a single driver.
    """
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
    """Return the state of a stored trial."""
    state = _STATES.get(trial.state, "running")
    if trial.user_attrs.get("stopped") and state in ("running", "rejected"):
        return "stopped"
    return state


def last_of_each(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the stored candidates, without rejected ones that were evaluated again later.

    An architecture is evaluated again if the limits that rejected it have changed. Damaged trials
    are returned as well.
    """
    stored = [trial for trial in trials if "candidate" in trial.user_attrs]
    last = {_digest(trial): trial.number for trial in stored}
    return [t for t in stored if state_of(t) != "rejected" or t.number == last[_digest(t)]]


def _digest(trial: FrozenTrial) -> str:
    candidate = trial.user_attrs["candidate"]
    known = isinstance(candidate, Mapping) and candidate.get("digest")
    return str(known or f"of trial {trial.number}")


def record_of(trial: FrozenTrial) -> TrialRecord:
    """Return the record of a stored trial.

    Raises:
        UserError: an attribute is damaged.
    """
    state = state_of(trial)
    stored = trial_attributes(trial.user_attrs, trial.number, complete=state == "complete")
    candidate = stored.candidate
    return TrialRecord(
        number=trial.number,
        state=state,
        digest=candidate.digest,
        architecture=candidate.architecture,
        assignment=candidate.assignment,
        reference=candidate.reference,
        repeats=candidate.repeats,
        reason=stored.reason,
        findings=stored.found,
    )
