"""The protocol of all rows of the table, and the folder of a run's records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from nas.datasets import DataConfig
from nas.protocol import TrainingConfig
from profiling.environment import fingerprint
from search_spaces.architecture import Architecture
from search_spaces.axes import Assignment
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace

Record = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One row of the table: a member of the space, or a reference model at its image size."""

    architecture: Architecture
    assignment: Assignment | None = None
    reference: str | None = None

    @property
    def digest(self) -> str:
        """Identity of the network."""
        return self.architecture.digest


class TableProtocol(BaseModel):
    """How the members of a space are trained for the table.

    With 610 training images in batches of 16 small VAEs learn something within nine epochs of a
    second each. Steps are in float32 whatever the processor, because bfloat16 gains nothing at
    32 pixels. The patience is the number of epochs, so it never ends a training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "table"
    data: DataConfig = DataConfig(count=872)
    training: TrainingConfig = TrainingConfig(
        epochs=9, patience=9, batch_size=16, precision="float32"
    )
    threads: int = 1

    def with_seed(self, seed: int) -> TableProtocol:
        """Return the same protocol with another seed of weights, order and noise."""
        training = self.training.model_copy(update={"seed": seed})
        return self.model_copy(update={"training": training})

    def on_photographs(self, folder: Path) -> TableProtocol:
        """Return the same protocol with as many images of a folder."""
        return self.model_copy(
            update={"data": DataConfig(kind="folder", path=folder, count=self.data.count)}
        )


def members(space: SearchSpace) -> list[Member]:
    """Return every distinct architecture once, in a fixed random order, then the references.

    In random order the first few are enough to estimate the time left.
    """
    built = ((space.architecture(one), one) for one in space.enumerate())
    distinct = {architecture.digest: Member(architecture, one) for architecture, one in built}
    listed = list(distinct.values())
    order = np.random.default_rng(0).permutation(len(listed))
    resized = {name: one.resized(space.image_size) for name, one in REFERENCES.items()}
    references = [Member(one, space.assignment(one), name) for name, one in resized.items()]
    return [
        *(listed[index] for index in order),
        *(one for one in references if one.digest not in distinct),
    ]


class RunFolder:
    """A folder of records, one JSON file per architecture and kind, each written atomically.

    Raises:
        UserError: The folder belongs to a run with another protocol.
    """

    def __init__(self, path: Path, protocol: TableProtocol) -> None:
        self.path, self.protocol = path, protocol
        self.space = SearchSpace.load(protocol.space)
        path.mkdir(parents=True, exist_ok=True)
        self._require_same_protocol()

    def has(self, kind: str, digest: str) -> bool:
        """Whether there is a record of this kind."""
        return self._file(kind, digest).exists()

    def write(self, kind: str, digest: str, record: Mapping[str, Any]) -> None:
        """Write a record atomically."""
        file = self._file(kind, digest)
        file.parent.mkdir(exist_ok=True)
        _write_whole(file, record)

    def get(self, kind: str, digest: str) -> Record | None:
        """Return one record, or None if it does not exist yet."""
        if not self.has(kind, digest):
            return None
        record: Record = json.loads(self._file(kind, digest).read_text())
        return record

    def read(self, kind: str) -> dict[str, Record]:
        """Return digest -> record of one kind."""
        files = sorted((self.path / kind).glob("*.json"))
        return {file.stem: json.loads(file.read_text()) for file in files}

    def about(self) -> Record:
        """Return protocol, space digest and the environment of the first run."""
        known: Record = json.loads((self.path / "run.json").read_text())
        return known

    def _file(self, kind: str, digest: str) -> Path:
        return self.path / kind / f"{digest}.json"

    def _require_same_protocol(self) -> None:
        file = self.path / "run.json"
        own = {"protocol": self.protocol.model_dump(mode="json"), "space": self.space.digest}
        if not file.exists():
            _write_whole(file, {**own, "environment": fingerprint().model_dump()})
            return
        known = self.about()
        for key, value in own.items():
            if known[key] != value:
                raise UserError(f"{file}: {key} differs from this run's; choose another --out")


def _write_whole(file: Path, record: Mapping[str, Any]) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(file)
