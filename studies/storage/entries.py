"""The entries of a journal: what Optuna writes in one line for each operation.

Only what the operations need is checked here. What `nas` stores in attributes is checked where it
is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from optuna.storages.journal._storage import JournalOperation as Op
from optuna.trial import TrialState
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

CREATED_BY = {Op.CREATE_STUDY: "study_id", Op.CREATE_TRIAL: "trial_id"}
"""Operation that creates a study or a trial, and the key that refers to it later."""

_NEEDED: dict[int, tuple[str, ...]] = {
    Op.CREATE_STUDY: ("study_name", "directions"),
    Op.DELETE_STUDY: ("study_id",),
    Op.SET_STUDY_USER_ATTR: ("study_id", "user_attr"),
    Op.SET_STUDY_SYSTEM_ATTR: ("study_id", "system_attr"),
    Op.CREATE_TRIAL: ("study_id", "datetime_start"),
    Op.SET_TRIAL_PARAM: ("trial_id",),
    Op.SET_TRIAL_STATE_VALUES: ("trial_id", "state", "values"),
    Op.SET_TRIAL_INTERMEDIATE_VALUE: ("trial_id", "step", "intermediate_value"),
    Op.SET_TRIAL_USER_ATTR: ("trial_id", "user_attr"),
    Op.SET_TRIAL_SYSTEM_ATTR: ("trial_id", "system_attr"),
    Op.DISCARD_TRIALS: (),
}
"""Keys of each operation's entry, besides its code and its writer."""


def _a_time(text: str) -> str:
    datetime.fromisoformat(text).astimezone()
    return text


_Number = Annotated[int, Field(ge=0)]
_Time = Annotated[str, AfterValidator(_a_time)]
_One = Annotated[dict[str, Any], Field(min_length=1, max_length=1)]
_Digits = Annotated[str, Field(pattern=r"^[0-9]{1,18}$")]

_KINDS: dict[str, Any] = {
    "worker_id": str,
    "study_id": _Number,
    "trial_id": _Number,
    "study_name": str,
    "directions": Annotated[list[Literal[0, 1, 2]], Field(min_length=1)],
    "user_attr": _One,
    "system_attr": _One,
    "user_attrs": dict[str, Any],
    "system_attrs": dict[str, Any],
    "datetime_start": _Time | None,
    "datetime_complete": _Time,
    "state": Literal[0, 1, 2, 3, 4],
    "value": float | None,
    "values": list[float] | None,
    "step": int,
    "intermediate_value": float,
    "intermediate_values": dict[_Digits, float],
}
_TYPES = {key: TypeAdapter[Any](kind).validator for key, kind in _KINDS.items()}


def check_entry(entry: Any) -> None:
    """Check one entry of a journal.

    Raises:
        ValueError: an operation is unknown, a key is missing, or a value has a wrong type.
    """
    code = entry.get("op_code") if isinstance(entry, dict) else None
    if type(code) is not int or code not in _NEEDED:
        raise ValueError("not an entry of a journal")
    for key in ("worker_id", *_NEEDED[code], *_needed_by_state(entry)):
        if key not in entry:
            raise ValueError(f"{key} is missing")
    if entry.get("value") is not None and entry.get("values") is not None:
        raise ValueError("value and values are both given")
    for key in [key for key in entry if key in _TYPES]:
        try:
            _TYPES[key].validate_python(entry[key], strict=True)
        except ValidationError as error:
            raise ValueError(f"{key}: {error.errors()[0]['msg']}") from None


def _needed_by_state(entry: Mapping[str, Any]) -> tuple[str, ...]:
    if entry["op_code"] != Op.SET_TRIAL_STATE_VALUES or entry.get("state") == TrialState.WAITING:
        return ()
    running = entry.get("state") == TrialState.RUNNING
    return ("datetime_start",) if running else ("datetime_complete",)
