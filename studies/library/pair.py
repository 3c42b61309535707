"""Two studies beside each other: differing settings, and fronts in their common objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.objectives import (
    OBJECTIVES,
    Objective,
    hypervolume,
    nondominated,
    reference_point,
    select_objectives,
    set_up_of,
)
from search_spaces.errors import UserError
from search_spaces.import_strings import is_import_string
from studies.record.records import StudyRecord, TrialRecord
from studies.store.agreement import environment_differences

_SAME_LOSS = ("loss", "ssim", "l1_weight", "kl_weight", "evaluate_at")
"""Settings of the training that must be equal where losses are compared."""

_SAME_LATENCY = ("backend", "precision", "part", "batch", "threads", "target")
"""Settings of a set-up that must be equal where latencies are compared."""

_UNCOMPARED = ("name", "description")


@dataclass(frozen=True)
class StudyPair:
    """Two studies, each restricted to the objectives that can be compared.

    Attributes:
        first, second: The studies.
        settings: (dotted key, value in the first, value in the second) where these differ.
        excluded: Common objective -> why its values cannot be compared.
    """

    first: StudyRecord
    second: StudyRecord
    settings: tuple[tuple[str, Any, Any], ...]
    excluded: Mapping[str, str] = field(default_factory=dict)

    @property
    def both(self) -> tuple[StudyRecord, StudyRecord]:
        """The two studies, in order."""
        return self.first, self.second

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """The common objectives whose values can be compared."""
        return self.first.objectives

    @property
    def hypervolumes(self) -> tuple[float, float]:
        """Hypervolume of each front, as a share of the box to the worst reference of both."""
        anchors = [one.minimised(one.references.values() or one.complete) for one in self.both]
        nadir = reference_point(np.concatenate(anchors), self.first.ideal)
        first, second = (
            hypervolume(one.minimised(one.front), nadir, one.ideal) for one in self.both
        )
        return first, second

    def best(self, objective: Objective) -> tuple[float, float]:
        """Return the best value of an objective on each front."""
        first, second = (
            min(
                (trial.objectives[objective.name] for trial in one.front),
                key=lambda value: objective.sign * value,
            )
            for one in self.both
        )
        return first, second

    def joint_front(self) -> tuple[tuple[TrialRecord, ...], tuple[TrialRecord, ...]]:
        """Return the members of each front that no member of the other front dominates."""
        points = np.concatenate([one.minimised(one.front) for one in self.both])
        kept = nondominated(points)
        count = len(self.first.front)
        return _where(self.first.front, kept[:count]), _where(self.second.front, kept[count:])


def compare_studies(first: StudyRecord, second: StudyRecord) -> StudyPair:
    """Return two studies beside each other.

    Raises:
        UserError: they have fewer than two objectives whose values can be compared; the message
            says why, for each.
    """
    common = [name for name in first.objective_names if name in second.objective_names]
    reasons = {name: _difference(name, first, second) for name in common}
    excluded = {name: reason for name, reason in reasons.items() if reason}
    names = [name for name in common if name not in excluded]
    for study in (first, second):
        if not study.front:
            raise UserError(f"study {study.name!r}: has no front to compare")
    if len(names) < 2:
        why = "; ".join(f"{name}: {reason}" for name, reason in excluded.items())
        raise UserError(
            f"studies {first.name!r} and {second.name!r} cannot be compared: they have fewer than "
            f"two objectives in common that can be{f' ({why})' if why else ''}"
        )
    chosen = select_objectives(names)
    settings = tuple(differing_settings(first, second))
    first, second = (replace(one, objectives=chosen, known=None) for one in (first, second))
    return StudyPair(first, second, settings, excluded)


def differing_settings(first: StudyRecord, second: StudyRecord) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, value in the first, value in the second) of settings that differ."""
    ours, theirs = _settings(first), _settings(second)
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield key, ours.get(key), theirs.get(key)


def _settings(study: StudyRecord) -> dict[str, Any]:
    kept = {key: one for key, one in study.config.items() if key not in _UNCOMPARED}
    sources = {name: source for name, (_, source) in study.own.items()}
    return dict(_flat({**kept, "space": study.space_name, "source": sources}))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _difference(name: str, first: StudyRecord, second: StudyRecord) -> str | None:
    """Return why the values of an objective cannot be compared; None if they can."""
    if is_import_string(name) and first.own.get(name) != second.own.get(name):
        return "its source differs"
    if OBJECTIVES[name].cost == "training":
        return _other_judgement(first, second)
    if OBJECTIVES[name].cost == "device" or name == "predicted_latency_ms":
        return _other_measurement(name, first, second)
    return None


def _other_judgement(first: StudyRecord, second: StudyRecord) -> str | None:
    if first.environment.get("data_fingerprint") != second.environment.get("data_fingerprint"):
        return "judged on other images"
    ours, theirs = (one.config.get("training") or {} for one in (first, second))
    different = [key for key in _SAME_LOSS if ours.get(key) != theirs.get(key)]
    return f"judged with another training.{different[0]}" if different else None


def _other_measurement(name: str, first: StudyRecord, second: StudyRecord) -> str | None:
    setup = set_up_of(name) or ""
    ours, theirs = (_set_up(one.config, setup) for one in (first, second))
    if different := [key for key in _SAME_LATENCY if ours.get(key) != theirs.get(key)]:
        return f"measured with another {', '.join(different)}"
    different = environment_differences(first.environment, second.environment)
    return f"measured in another environment ({'; '.join(different)})" if different else None


def _set_up(config: Mapping[str, Any], setup: str) -> Mapping[str, Any]:
    found = (config.get("setups") or {}).get(setup) if setup else config.get("latency")
    return found or {}


def _where(trials: tuple[TrialRecord, ...], kept: npt.NDArray[np.bool_]) -> tuple[TrialRecord, ...]:
    return tuple(trial for trial, keep in zip(trials, kept, strict=True) if keep)
