"""Stored results of long computations, each with the settings that it depends on."""

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

from nas.artefacts import folder_or_refuse
from nas.checkpoint import read_tensors, write_tensors
from search_spaces.errors import UserError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_FORMAT = 1
"""Increase it when the same settings give other results."""


@dataclass(frozen=True)
class Stored:
    """A folder of named results. A result whose settings changed is computed again."""

    folder: Path

    def arrays(self, name: str, source: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
        """Return the result stored under `name`, or compute and store it.

        Args:
            name: Name of the file, without the suffix.
            source: All settings that the result depends on, as plain JSON types.
            make: Computes the result.
        """
        path, key = self.folder / f"{name}.safetensors", _key(source)
        found = _read(path, key)
        if found is None:
            found = make()
            folder_or_refuse(self.folder)
            tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in found.items()}
            write_tensors(path, tensors, {"source": key})
        return found


def file_digest(path: Path) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a file."""
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
