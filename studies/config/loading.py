"""Read a study's configuration: a preset or a YAML file, with overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.errors import UserError, nearest, refusal
from search_spaces.yaml_file import parse_yaml, read_yaml
from studies.config.presets import presets
from studies.config.study import StudyConfig

_SECTIONS = ("data", "limits", "training", "latency", "search", "ray")

SHORTCUTS: dict[str, str] = {
    "name": "name",
    "space": "space",
    "trials": "search.trials",
    "sampler": "search.sampler",
    "seed": "search.seed",
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
    path = _find(source)
    data = _read(path)
    data.setdefault("name", path.stem)
    _place_images(data, path.parent)
    return overridden(data, overrides or {}, str(path))


def overridden(data: dict[str, Any], overrides: Mapping[str, Any], source: str) -> StudyConfig:
    """Apply overrides to a configuration and validate it.

    Args:
        data: The configuration as plain JSON types; it is changed in place.
        overrides: Values by dotted key, such as `training.epochs`.
        source: Name of the configuration in error messages.

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
        raise refusal(error, source, StudyConfig) from None


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


def _find(source: str) -> Path:
    known = presets()
    if source in known:
        return known[source]
    path = Path(source)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return path
    raise UserError(
        f"{source!r} is neither a preset ({', '.join(known)}) nor a YAML file"
        f"{nearest(source, known)}"
    )


def _read(path: Path) -> dict[str, Any]:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a study's configuration must be a mapping of keys to values")
    # An empty section (`training:`) has its default settings.
    return {k: {} if value is None and k in _SECTIONS else value for k, value in data.items()}


def _place_images(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths of images in a file relative to the folder of the file."""
    section = data.get("data")
    if not isinstance(section, dict):
        return
    for key in ("path", "labels"):
        if isinstance(path := section.get(key), str) and path and not path.startswith("~"):
            section[key] = str(folder / path)


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
