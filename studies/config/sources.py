"""Where the configuration of a study is read from: a preset, a file, or a stored study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError, nearest
from search_spaces.yaml_file import read_yaml
from studies.config.presets import presets
from studies.record.earlier import complete_latency, complete_training
from studies.record.names import HEAD, is_name, studies_in

_SECTIONS = ("data", "limits", "training", "latency", "search", "ray")
_STORED = {"storage", "config"}
"""Keys that distinguish the `study.yaml` of a stored study from a configuration."""


@dataclass(frozen=True)
class Source:
    """A configuration as it was read, not yet validated.

    Attributes:
        data: The configuration as plain JSON types, with a name.
        shown: Its origin in messages: the name of a preset, or the path of a file.
        stored: Whether it is the `study.yaml` that a study has left.
        folder: The folder of that study; None if the file is not in it.
    """

    data: dict[str, Any]
    shown: str
    stored: bool = False
    folder: Path | None = None


def find_source(text: str, root: Path | None = None) -> Source:
    """Find the configuration that the user names.

    Args:
        text: The name of a preset, the path of a YAML file or of a study's folder, or the name of a
            study in `root`. A preset comes before a study of the same name.
        root: Folder of all studies; None finds no study by its name.

    Raises:
        UserError: there is none, or the file holds no configuration.
    """
    known = presets()
    if text in known:
        return _read(known[text], text)
    path = Path(text)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return _read(path, text)
    for folder in [*([root / text] if root and is_name(text) else []), path]:
        if (folder / HEAD).is_file():
            return _read(folder / HEAD, str(folder / HEAD))
    if path.exists():  # a folder, or no ordinary file: the reader says what is wrong with it
        return _read(path, text)
    studies = [] if root is None else studies_in(root)
    study = "" if root is None else f", a study in {root}"
    raise UserError(
        f"{text!r} is neither a preset ({', '.join(known)}){study} nor a YAML file"
        f"{nearest(text, [*known, *studies])}"
    )


def stored_config(head: Path) -> dict[str, Any]:
    """Return the configuration in the `study.yaml` of a stored study.

    Settings that earlier versions did not store are completed. The description of a space that was
    read from a file takes the place of its path, so that the file is not needed any more.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    written = read_yaml(head)
    if not (isinstance(written, dict) and isinstance(written.get("config"), dict)):
        raise UserError(f"{head}: damaged (it has no configuration); restore it from a copy")
    config: dict[str, Any] = dict(written["config"])
    if isinstance(space := written.get("space"), Mapping):
        config["space"] = space
    for key, complete in (("training", complete_training), ("latency", complete_latency)):
        if isinstance(section := config.get(key), Mapping):
            config[key] = complete(section)
    return config


def _read(path: Path, shown: str) -> Source:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: a study's configuration must be a mapping of keys to values")
    if data.keys() >= _STORED:
        stored: dict[str, Any] = stored_config(path)
        folder: Path | None = None
        if path.name == HEAD and (path.parent / "artefacts").is_dir():
            nameless = path.parent.name in ("", "..")
            folder = path.parent.resolve() if nameless else path.parent
            stored["name"] = folder.name  # it may have been moved
        return Source(stored, shown, stored=True, folder=folder)
    # An empty section (`training:`) has its default settings.
    data = {k: {} if value is None and k in _SECTIONS else value for k, value in data.items()}
    data.setdefault("name", path.stem)
    _place_images(data, path.parent)
    return Source(data, shown)


def _place_images(data: dict[str, Any], folder: Path) -> None:
    """Make relative paths of images in a file relative to the folder of the file."""
    section = data.get("data")
    if not isinstance(section, dict):
        return
    for key in ("path", "labels"):
        if isinstance(path := section.get(key), str) and path and not path.startswith("~"):
            section[key] = str(folder / path)
