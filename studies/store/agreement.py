"""Check that two runs of a study agree, and that a study may learn from another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.record.names import HEAD

if TYPE_CHECKING:  # reading a study needs no torch, which this imports
    from studies.config.study import StudyConfig

ENVIRONMENT = (
    "device",
    "device_name",
    "torch_version",
    "allocator",
    "mkldnn",
    "tf32",
    "runtime",
    "latency_predictor",
    "timed_on",
    "targets",
)
"""Entries of the environment that must not change either where latency is measured."""

QUESTION = ("space", "data", "objectives", "training", "latency", "setups")
"""Sections that must not change between two runs of one study: they make values comparable.

Limits may change: they only decide which trials count (`studies.record.verdict`).
"""

StudyAttributes = Mapping[str, Any]
"""A study's attributes, as an earlier run recorded them."""


def require_same_question(
    stored: StudyAttributes,
    config: StudyConfig,
    space: SearchSpace,
    environment: Mapping[str, Any],
    folder: Path,
) -> None:
    """Check that a run has the same space, data, objectives and protocols as the stored study.

    Args:
        stored: Attributes of the stored study.
        config: The run's configuration.
        space: The run's search space.
        environment: The run's environment and data fingerprint.
        folder: The study's folder, for the error.

    Raises:
        UserError: they differ; the message names each difference.
    """
    before, current = _with_description(stored["config"]), _with_description(config.to_dict())
    # Of a space, the digest decides: its file may have been moved, or be described instead.
    differing = [key for key in QUESTION[1:] if current[key] != before.get(key)]
    if stored["space_digest"] != space.digest:
        differing.insert(0, "space")
    data = stored["environment"].get("data_fingerprint")
    if not differing and data != environment["data_fingerprint"]:
        differing = ["data"]
    found = [_difference(key, before.get(key), current[key]) for key in differing]
    found += _changed_sources(stored.get("own", {}), config.describe_own())
    if found:
        parts = "; ".join(found)
        raise UserError(
            f"study {config.name!r} exists with other settings ({parts}): give this one another "
            f"--name, go on with the study's own settings (nas study run {folder / HEAD}), or "
            f"delete it to start again (nas study delete {config.name})"
        )


def _changed_sources(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the parts of the user's own whose source is not that of the stored study."""
    return [
        f"the source of {name} was {before[name]['source']}, now {one['source']}"
        for name, one in now.items()
        if name in before and before[name]["source"] != one["source"]
    ]


def _with_description(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "data": _described(config.get("data"))}


def _described(data: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a description of images without its paths: pixels decide, which have a fingerprint.

    Earlier versions squashed the images of a folder, and took the first ones by name.
    """
    found = {k: v for k, v in (data or {}).items() if k not in ("path", "labels")}
    if found.get("kind") == "folder" and "fit" not in found:
        return {**found, "fit": "squash", "subset": "the first by name"}
    return found


def mixed_environments(
    before: Mapping[str, Any], config: StudyConfig, environment: Mapping[str, Any], mix: bool
) -> list[str]:
    """Return the differences between all environments in which a study measures latency.

    The rule is equal for a later run and for a second driver.

    Args:
        before: The recorded environment.
        config: The study's configuration.
        environment: The environment of this run.
        mix: Whether another environment is allowed.

    Raises:
        UserError: latency is measured, the environment differs, and `mix` is False.
    """
    mixed = list(before.get("mixed", []))
    found = environment_differences(before, environment)
    if not found or not config.timed:
        return mixed
    parts = [part for part in found if part not in mixed]
    if parts and not mix:
        raise UserError(
            f"study {config.name!r} was measured in another environment ({'; '.join(parts)}): "
            "latencies would not be comparable; run it there, give this one another --name, or "
            "accept the difference with --mix-environments"
        )
    return mixed + parts


def environment_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between two environments in the entries that affect latency."""
    return [
        _difference(key, before.get(key), now.get(key))
        for key in ENVIRONMENT
        if before.get(key) != now.get(key)
    ]


def require_comparable(
    stored: StudyAttributes, name: str, config: StudyConfig, space: SearchSpace, data: str | None
) -> None:
    """Check that a study may learn from the stored study `name`.

    Args:
        stored: Attributes of the stored study.
        name: Its name.
        config: The configuration of the study that learns.
        space: The search space of the study that learns.
        data: Its data fingerprint; None where nothing is trained.

    Raises:
        UserError: the stored study has another space or other data, or lacks objectives.
    """
    differing = [
        part
        for part, differs in {
            "other space": stored["space_digest"] != space.digest,
            "other data": stored["environment"].get("data_fingerprint") != data,
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
        return f"{key} has the same description, but its content changed"
    return f"{key} was {_short(stored)}, now {_short(current)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
