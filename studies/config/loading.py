"""Read a study's configuration: a preset or a YAML file, with overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from search_spaces.errors import UserError, refusal
from search_spaces.yaml_file import parse_yaml
from studies.config.sources import find_source
from studies.config.study import StudyConfig

SHORTCUTS: dict[str, str] = {
    "name": "name",
    "space": "space",
    "trials": "search.trials",
    "sampler": "search.sampler",
    "seed": "search.seed",
    "focus": "search.focus",
    "warm_start": "search.warm_start",
    "epochs": "training.epochs",
    "loss": "training.loss",
    "recipe": "training.recipe",
    "images": "data.count",
    "backend": "latency.backend",
    "part": "latency.part",
    "target": "latency.target",
    "device": "device",
    "workers": "workers",
    "threads": "threads",
    "trial_timeout": "trial_timeout_s",
    "trial_memory": "trial_memory_bytes",
    "runner": "runner",
    "address": "ray.address",
}
"""Configuration key of each option of `nas study run`, and of each argument of `run_study`."""


def load_config(source: str, overrides: Mapping[str, Any] | None = None) -> StudyConfig:
    """Read a preset's name or a YAML file, apply `overrides` and validate.

    Args:
        source: A preset's name, or the path of a YAML file. Without the key `name`, the study has
            the file's name. Relative paths of images are relative to the file's folder.
        overrides: Values by dotted key, such as `training.epochs`.

    Raises:
        UserError: the configuration is invalid; the message has one line per fault.
    """
    found = find_source(source)
    return overridden(found.data, overrides or {}, found.shown)


def overridden(
    data: dict[str, Any],
    overrides: Mapping[str, Any],
    source: str,
    options: Mapping[str, str] | None = None,
) -> StudyConfig:
    """Apply overrides to a configuration and validate it.

    Args:
        data: The configuration as plain JSON types; it is changed in place.
        overrides: Values by dotted key, such as `training.epochs`.
        source: Name of the configuration in error messages.
        options: The option that gave a key its value, which a message names in place of `source`.

    Raises:
        UserError: the configuration is invalid; the message has one line per fault.
    """
    for key, value in overrides.items():
        _set(data, key, value, source)
        if key.partition(".")[0] in ("space", "data", "training"):
            data.pop("description", None)  # it describes the values that are overridden
    try:
        return StudyConfig.model_validate(data)
    except ValidationError as error:
        raise refusal(error, source, StudyConfig, options) from None


def parse_overrides(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Parse an option's `key=value` texts into overrides; values are YAML.

    Raises:
        UserError: a text is not of this form; the message names `option`.
    """
    overrides = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {pair}: write it as key=value, with an equals sign")
        overrides[key] = parse_yaml(text, f"{option} {pair}")
    return overrides


def _set(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    # The name of a limit may be an import string, which has dots.
    parts = key.split(".", 1) if key.startswith("limits.") else key.split(".")
    *parents, last = parts
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"{source}: {key}: {parent!r} is a value, not a section with keys")
        data = inner
    data[last] = value
