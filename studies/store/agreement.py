"""What must agree between two runs of a study, and between studies that learn from each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError
from search_spaces.space import SearchSpace

if TYPE_CHECKING:  # reading a study needs no torch, which this imports
    from studies.config.study import StudyConfig

PLACE = (
    "device",
    "device_name",
    "torch_version",
    "allocator",
    "mkldnn",
    "tf32",
    "latency_predictor",
)
"""Facts of the environment that must not change either where latency is measured."""

IDENTITY = ("space", "data", "objectives", "training", "latency")
"""What must not change between two runs of one study: values would no longer be comparable."""

StudyAttributes = Mapping[str, Any]
"""A study's attributes, as an earlier run wrote them."""


def require_same_question(
    stored: StudyAttributes,
    config: StudyConfig,
    space: SearchSpace,
    environment: Mapping[str, Any],
    folder: Path,
) -> None:
    """Check that a run asks what the stored study asks.

    Raises:
        UserError: it does not; what differs is named.
    """
    before, current = stored["config"], config.to_dict()
    differing = [key for key in IDENTITY if current[key] != before[key]]
    if stored["space_digest"] != space.digest and "space" not in differing:
        differing.insert(0, "space")
    data = stored["environment"]["data_fingerprint"]
    if not differing and data != environment["data_fingerprint"]:
        differing = ["data"]
    if differing:
        parts = "; ".join(_difference(key, before[key], current[key]) for key in differing)
        raise UserError(
            f"study {config.name!r} exists with other settings ({parts}): "
            "give this one another --name, or remove the folder "
            f"{folder} to start again"
        )


def mixed_places(
    before: Mapping[str, Any], config: StudyConfig, environment: Mapping[str, Any], mix: bool
) -> list[str]:
    """Return in what the environments differ that a study's latencies were measured in.

    `mix` accepts one more. It is the same for a run that follows and for a driver beside.

    Raises:
        UserError: latency is measured, the environment is another, and `mix` is False.
    """
    mixed = list(before.get("mixed", []))
    found = differing_places(before, environment)
    if not found or not config.timed:
        return mixed
    parts = [part for part in found if part not in mixed]
    if parts and not mix:
        raise UserError(
            f"study {config.name!r} was measured elsewhere ({'; '.join(parts)}): latencies "
            "would not compare; run it there, give this one another --name, or mix them all "
            "the same with --mix-environments"
        )
    return mixed + parts


def differing_places(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in what two environments differ that must agree where latency is measured."""
    return [
        _difference(key, before.get(key), now.get(key))
        for key in PLACE
        if before.get(key) != now.get(key)
    ]


def require_alike(
    stored: StudyAttributes, name: str, config: StudyConfig, space: SearchSpace, data: str | None
) -> None:
    """Check that a study may learn from the stored one, called `name`.

    Raises:
        UserError: it has another space or data, or lacks objectives; what differs is named.
    """
    differing = [
        part
        for part, differs in {
            "other space": stored["space_digest"] != space.digest,
            "other data": stored["environment"]["data_fingerprint"] != data,
        }.items()
        if differs
    ]
    if lacking := [o for o in config.objectives if o not in stored["config"]["objectives"]]:
        differing.append(f"no {', '.join(lacking)}")
    if differing:
        raise UserError(
            f"search.warm_start: study {name!r} has {' and '.join(differing)}; "
            "name one of the same space and data with at least these objectives"
        )


def _difference(key: str, stored: Any, current: Any) -> str:
    if isinstance(stored, dict) and isinstance(current, dict):
        inner = [
            _difference(f"{key}.{name}", stored.get(name), current.get(name))
            for name in sorted({*stored, *current})
            if stored.get(name) != current.get(name)
        ]
        if inner:
            return "; ".join(inner)
    if stored == current:
        return f"{key} is described as before but its content changed"
    return f"{key} was {json.dumps(stored)}, now {json.dumps(current)}"
