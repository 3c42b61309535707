"""What every row of the table has in common, and where a run keeps its records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from nas.datasets import DataConfig
from nas.protocol import TrainingConfig
from profiling.environment import fingerprint
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace

Record = dict[str, Any]


class TableProtocol(BaseModel):
    """How the members of a space are trained for the table.

    610 training images in batches of 16 at a learning rate of 1e-3 are what lets small VAEs learn
    something within nine epochs that take a second each: the loss of two seeds then differs by
    about 0.005, that of two members by up to 0.1. Patience never runs out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    space: str = "table"
    data: DataConfig = DataConfig(count=872)
    training: TrainingConfig = TrainingConfig(
        epochs=9, patience=9, batch_size=16, learning_rate=1e-3
    )
    threads: int = 1


class RunFolder:
    """A folder of records, one JSON file per architecture and kind, each written as a whole.

    Raises:
        UserError: the folder belongs to a run with another protocol.
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
        """Write a record so that it is there as a whole or not at all."""
        file = self._file(kind, digest)
        file.parent.mkdir(exist_ok=True)
        _write_whole(file, record)

    def read(self, kind: str) -> dict[str, Record]:
        """Return digest -> record of one kind."""
        files = sorted((self.path / kind).glob("*.json"))
        return {file.stem: json.loads(file.read_text()) for file in files}

    @property
    def environment(self) -> Record:
        """Where the first run took place."""
        read: Record = json.loads((self.path / "run.json").read_text())["environment"]
        return read

    def _file(self, kind: str, digest: str) -> Path:
        return self.path / kind / f"{digest}.json"

    def _require_same_protocol(self) -> None:
        file = self.path / "run.json"
        own = {"protocol": self.protocol.model_dump(mode="json"), "space": self.space.digest}
        if not file.exists():
            _write_whole(file, {**own, "environment": fingerprint().model_dump()})
            return
        known = json.loads(file.read_text())
        for key, value in own.items():
            if known[key] != value:
                raise UserError(f"{file}: {key} differs from this run's; choose another --out")


def _write_whole(file: Path, record: Mapping[str, Any]) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
    unfinished.write_text(json.dumps(record, indent=1))
    unfinished.replace(file)
