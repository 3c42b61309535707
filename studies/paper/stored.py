"""Results that took long, kept beside the study with what they were made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.checkpoint import read_tensors, write_tensors
from search_spaces.errors import UserError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_FORMAT = 1
"""Raise it when the same settings come to mean other results."""


@dataclass(frozen=True)
class Stored:
    """A folder of named results. One that was made from something else is made again."""

    folder: Path

    def arrays(self, name: str, source: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """Return what is kept under `name`, or make and keep it.

        Args:
            name: Of the file.
            source: All that the result depends on, plain JSON types.
            make: Makes the result.
        """
        path, key = self.folder / f"{name}.safetensors", _key(source)
        found = _read(path, key)
        if found is None:
            found = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in found.items()}
            write_tensors(path, tensors, {"source": key})
        return found


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits that name a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _read(path: Path, key: str) -> Arrays | None:
    try:
        tensors, metadata = read_tensors(path)
    except UserError:  # missing or damaged
        return None
    if metadata.get("source") != key:
        return None
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _key(source: Mapping[str, Any]) -> str:
    return json.dumps({"format": _FORMAT, **source}, sort_keys=True)
