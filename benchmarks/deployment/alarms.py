"""Can latency be trusted in another runtime? Figures of docs/latency.md for further set-ups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.deployment.rows import MEASURED, Rows, fill
from benchmarks.latency_summary import (
    Line,
    Row,
    agreement_lines,
    flagged_line,
    itself_lines,
    waiting_line,
)
from benchmarks.latency_trust import (
    CONFIG,
    architectures,
    busy_loops,
    in_a_study,
    itself,
    own_models,
    row,
)
from nas.latency import Meter
from nas.setups import SetUp
from profiling.fresh_process import FreshProcess
from search_spaces.architecture import Architecture

KEY = ("setup", "kind", "item")
STEPS = ("counting_s", "latency_s", "waiting_s", "training_s")

BACKENDS = ("onnxruntime", "openvino")
LOOPS = {"nothing": 0, "1 busy": 1, "2 busy": 2}


@dataclass(frozen=True)
class Counts:
    """How many measurements are made in each set-up.

    Attributes:
        itself: Comparisons of a model with itself.
        loops: The same beside one busy loop, and beside two.
        members: Architectures that are measured on a quiet machine and in a study of two workers.
    """

    itself: int = 100
    loops: int = 20
    members: int = 20


def rows_of(folder: Path) -> Rows:
    """Return the rows of a folder."""
    return Rows(folder / "alarms.csv", KEY, (*MEASURED, *STEPS))


def alarms(folder: Path, counts: Counts, backends: tuple[str, ...] = BACKENDS) -> None:
    """Measure what the folder lacks, one set-up after the other."""
    rows = rows_of(folder)
    for backend in backends:
        setup = CONFIG.model_copy(update={"backend": backend})
        _against_itself(rows, setup, counts)
        measure = partial(_measured, Meter(setup, torch.device("cpu")))
        fill(rows, _quiet(backend, counts), measure, f"{backend}, quiet:")
        _in_a_study(rows, setup, counts)


def _against_itself(rows: Rows, setup: SetUp, counts: Counts) -> None:
    models = own_models()
    once = setup.model_copy(update={"attempts": 1})
    with FreshProcess(_Apart, once, tuned=True) as process:
        for kind, loops in LOOPS.items():
            numbers = range(counts.loops if loops else counts.itself)
            jobs = [((setup.backend, kind, n), (kind, models[n % len(models)])) for n in numbers]
            if all(rows.get(*key) for key, _ in jobs):
                continue
            with busy_loops(loops) if loops else nullcontext():
                fill(rows, jobs, lambda job: process.call("row", *job), f"{setup.backend}, {kind}:")


class _Apart:
    """Compares models with themselves in a process of its own, which an engine may end."""

    def __init__(self, setup: SetUp) -> None:
        self._setup = setup

    def row(self, beside: str, architecture: Architecture) -> Row:
        """Return the columns of one comparison."""
        return itself(architecture, beside, self._setup)


def _measured(meter: Meter, architecture: Architecture) -> Row:
    return row(meter.measure(architecture)[0])


def _quiet(backend: str, counts: Counts) -> Iterator[Any]:
    """Yield the key and the architecture of each row; every other one is measured twice."""
    chosen = architectures(counts.members)
    for kind, some in (("quiet 1", chosen), ("quiet 2", chosen[::2])):
        yield from (((backend, kind, one.digest), one) for one in some)


def _in_a_study(rows: Rows, setup: SetUp, counts: Counts) -> None:
    """Evaluate the members that have no row yet."""
    wanted = architectures(counts.members)
    left = [one for one in wanted if rows.get(setup.backend, "lane", one.digest) is None]
    for done, one in enumerate(in_a_study(left, apart=False, latency=setup), start=1):
        contention = "contended" if one.pop("contended") else ""
        key = {"setup": setup.backend, "kind": "lane", "item": one["digest"]}
        rows.append({**one, **key, "contention": contention})
        print(f"{setup.backend}, in a study: {len(wanted) - len(left) + done}/{len(wanted)}")


def lines(folder: Path) -> list[Line]:
    """Return (what, figure, goal) for each set-up."""
    found: list[Line] = []
    rows = rows_of(folder).all
    for setup in dict.fromkeys(one["setup"] for one in rows):
        kinds: dict[str, list[Row]] = {}
        for one in rows:
            if one["setup"] == setup:
                kinds.setdefault(one["kind"], []).append({**one, "digest": one["item"]})
        found += [(f"{setup}: {what}", text, goal) for what, text, goal in _of_one(kinds)]
    return found


def _of_one(kinds: dict[str, list[Row]]) -> Iterator[Line]:
    if some := kinds.get("nothing"):
        yield from itself_lines(some)
    for beside in ("1 busy", "2 busy"):
        if some := kinds.get(beside):
            yield flagged_line(beside, some)
    by_digest = {kind: {one["digest"]: one for one in some} for kind, some in kinds.items()}
    if truth := by_digest.get("quiet 1"):
        for kind, what in (("quiet 2", "quiet, measured again"), ("lane", "two workers, lane")):
            if kind in by_digest:
                yield from agreement_lines(what, by_digest[kind], truth, "")
    if some := kinds.get("lane"):
        yield waiting_line(some)
