"""Data sets of the user's own: functions that return images.

A data set is a function without arguments, or of `path`, which is then the `path` of the
configuration. It returns an array, a tensor, a torch `Dataset`, a list of pictures, or the path of
a folder, an archive or an array file. Its images must be the same at each call.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.datasets.dataset import DataConfig, ImageDataset
from nas.datasets.files import existing_source, load_folder
from nas.datasets.given import saved
from nas.own.imports import imported, require_call, told
from profiling.progress import Progress
from search_spaces.errors import UserError
from search_spaces.sizes import Size


def load_own(
    config: DataConfig, image_size: Size, channels: int, progress: Progress | None
) -> ImageDataset:
    """Call the function that `config.kind` names, and load the images that it returns.

    Raises:
        UserError: the function raised an exception, or returned no images.
    """
    path = _source(config)
    folder = config.model_copy(update={"kind": "folder", "path": path})
    existing_source(folder)
    loaded = load_folder(folder, image_size, channels, progress)
    return replace(loaded, name=config.kind)


def require_own(config: DataConfig) -> None:
    """Check that the function that `config.kind` names can be called.

    Raises:
        UserError: there is no such function, or it takes other arguments.
    """
    require_call(config.kind, imported(config.kind), _arguments(config))


def _arguments(config: DataConfig) -> tuple[str, ...]:
    return () if config.path is None else ("path",)


def _source(config: DataConfig) -> Path:
    """Return where the images are that the function returns."""
    require_own(config)
    given: list[Any] = [] if config.path is None else [config.path]
    try:
        found = imported(config.kind)(*given)
    except Exception as error:  # code of the user
        raise UserError(f"{config.kind} raised {told(error)}") from None
    return Path(found) if isinstance(found, str | Path) else saved(found, config.kind)
