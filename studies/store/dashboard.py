"""Notes and pictures for optuna-dashboard, in the attributes where it looks for them.

They are attributes of the study, because a trial that has ended cannot be changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from studies.store.opened import OpenedStudy

_LONGEST = 2045
"""Length of one part of a note in characters; more is cut off."""

_OURS = 1
"""The version of a note that nobody has edited: the dashboard counts it up."""


@dataclass(frozen=True)
class Shown:
    """What is shown of one trial, or of the study.

    Attributes:
        number: The trial's number; None for the study.
        note: A text in Markdown.
        picture: Name of its file in the folder of artifacts, in hexadecimal digits.
        title: Name of the picture for people.
    """

    number: int | None
    note: str
    picture: str
    title: str


def show(opened: OpenedStudy, everything: Sequence[Shown]) -> None:
    """Store notes and pictures, where they have changed; a note that was edited is kept."""
    storage, study_id = opened.storage, opened.study_id
    stored = storage.get_study_system_attrs(study_id)
    for one in everything:
        trial_id = one.number
        if trial_id is not None:
            trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial_id)
        wanted = _picture(trial_id, one)
        at = "" if trial_id is None else f"{trial_id}:"
        if stored.get(f"dashboard:{at}note_ver", _OURS) == _OURS:
            wanted |= {f"dashboard:{at}note_ver": _OURS}
            wanted |= {f"dashboard:{at}note_str:0": one.note[:_LONGEST]}
        for key, value in wanted.items():
            if stored.get(key) != value:
                storage.set_study_system_attr(study_id, key, value)


def _picture(trial_id: int | None, one: Shown) -> dict[str, Any]:
    kind = "artifacts:" if trial_id is None else f"dashboard:artifacts:{trial_id}:"
    about = {"artifact_id": one.picture, "filename": one.title}
    return {kind + one.picture: json.dumps({**about, "mimetype": "image/png", "encoding": None})}
