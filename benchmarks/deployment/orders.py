"""Members of a space and both references in every set-up: does a runtime change their order?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.deployment.rows import MEASURED, Rows, fill
from benchmarks.latency_summary import Row
from benchmarks.latency_trust import architectures, row
from nas.latency import Meter
from nas.setups import EngineRefused, SetUp, require_backend
from profiling.fresh_process import ProcessEndedError, begun_again
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES

CPU = torch.device("cpu")
SPACE, SIZE = "wide@64", 64
KEY = ("sweep", "setup", "digest")

LIMITS: dict[str, Any] = {"max_s": 4.0, "attempts": 2}
"""Limits of one measurement."""

SETUPS: dict[str, dict[str, Any]] = {
    "eager": {},
    "channels_last": {"backend": "channels_last"},
    "onnxruntime": {"backend": "onnxruntime"},
    "onnxruntime_rewritten": {"backend": "onnxruntime_rewritten"},
    "openvino": {"backend": "openvino"},
    "openvino_rewritten": {"backend": "openvino_rewritten"},
    "openvino_bfloat16": {"backend": "openvino", "precision": "bfloat16"},
    "decoder": {"part": "decoder"},
    "onnxruntime_decoder": {"backend": "onnxruntime", "part": "decoder"},
}
"""Name -> the settings in which a set-up differs from the full pass in eager PyTorch."""


def usable(names: Mapping[str, dict[str, Any]] = SETUPS) -> dict[str, SetUp]:
    """Return the set-ups that run here; print why another one does not."""
    found = {}
    for name, settings in names.items():
        setup = SetUp.model_validate({**LIMITS, **settings})
        try:
            require_backend(setup, CPU)
        except UserError as error:
            print(f"{name}: left out ({error})")
        else:
            found[name] = setup
    return found


@dataclass(frozen=True)
class Job:
    """One architecture in one set-up."""

    setup: str
    architecture: Architecture


def members(count: int) -> dict[str, Architecture]:
    """Return both references and `count` members of the space that are drawn at random."""
    drawn = {one.digest: one for one in architectures(count, SPACE)}
    return {**{name: one.resized(SIZE) for name, one in REFERENCES.items()}, **drawn}


def plan(models: Mapping[str, Architecture], names: Mapping[str, SetUp]) -> Iterator[Any]:
    """Yield the key and the job of each row.

    The second sweep, over every other model and the references, begins when the first has ended in
    all set-ups: a measurement is repeated an hour later.
    """
    for sweep in (1, 2):
        chosen = list(models.values())
        again = [*chosen[: len(REFERENCES)], *chosen[len(REFERENCES) :: 2]]
        for name in names:
            for one in chosen if sweep == 1 else again:
                yield (sweep, name, one.digest), Job(name, one)


class Meters:
    """Measures jobs in the process of one set-up at a time, which keeps the reference's engines."""

    def __init__(self, setups: Mapping[str, SetUp]) -> None:
        self._setups = setups
        self._current: tuple[str, Meter] | None = None

    def measure(self, job: Job) -> Row:
        """Return the columns of a measurement; that of a model that cannot run has a failure."""
        if self._current is None or self._current[0] != job.setup:
            self._current = job.setup, Meter(self._setups[job.setup], CPU)
        try:
            pair, _ = begun_again(self._current[1].measure, job.architecture)
        except (EngineRefused, ProcessEndedError) as error:
            return {"failure": str(error)}
        return row(pair)


def rows_of(folder: Path) -> Rows:
    """Return the rows of a folder."""
    return Rows(folder / "orders.csv", KEY, ("name", *MEASURED, "failure"))


def orders(folder: Path, count: int, again: bool) -> None:
    """Measure what the folder lacks."""
    models, setups = members(count), usable()
    names, meters = {one.digest: name for name, one in models.items()}, Meters(setups)

    def measured(job: Job) -> Row:
        digest = job.architecture.digest
        return {"name": names[digest] if names[digest] in REFERENCES else "", **meters.measure(job)}

    fill(rows_of(folder), plan(models, setups), measured, "measured", again=again)
