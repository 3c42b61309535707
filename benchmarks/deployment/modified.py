"""`modified` in each engine that computes exactly the same, against eager `original`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.deployment.orders import CPU
from benchmarks.deployment.rows import MEASURED, Rows, fill
from benchmarks.latency_summary import Row
from benchmarks.latency_trust import row
from nas.timed_models import TimedImages, timed_model
from profiling.backends import BACKENDS, prepare_backend
from profiling.errors import ProfilingError
from profiling.fresh_process import FreshProcess
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.paired import PairedLatency, measure_interleaved
from profiling.symbolic import Example, as_args
from search_spaces.references import MODIFIED, ORIGINAL

GOALS = {1: 1.1, 8: 1.6}
"""Batch -> largest ratio of `modified` in its best engine to eager `original`."""

ENGINES = (
    "eager", "rewritten", "onnxruntime", "onnxruntime_rewritten", "openvino", "openvino_rewritten",
)  # fmt: skip


def rows_of(folder: Path) -> Rows:
    """Return the rows of a folder."""
    return Rows(folder / "modified.csv", ("batch", "backend"), ("error", *MEASURED, "failure"))


def modified(folder: Path, again: bool, size: int = 144, max_s: float = 60.0) -> None:
    """Measure what the folder lacks, each engine at each batch size in a process of its own."""

    def measured(job: tuple[int, str]) -> Row:
        with FreshProcess(_Pair, *job, size, max_s, tuned=True) as process:
            try:
                found: Row = process.call("measure")
            except ProfilingError as error:
                return {"failure": str(error)}
        return found

    jobs = [((batch, name), (batch, name)) for batch in GOALS for name in ENGINES]
    fill(rows_of(folder), jobs, measured, "measured", again=again)


class _Pair:
    """Measures one engine in its own process, because an engine may end it."""

    def __init__(self, batch: int, backend: str, size: int, max_s: float) -> None:
        self._backend, self._size = backend, size
        self._config = LatencyConfig(batch=batch, max_s=max_s, attempts=2)

    def measure(self) -> Row:
        """Return the columns of the measurement, with the largest error against float64."""
        images, lane = TimedImages.noise(self._size), Lane("cpu")
        with lane.training():
            models = {
                "reference": timed_model(ORIGINAL.resized(self._size), images)[0],
                "candidate": timed_model(MODIFIED.resized(self._size), images)[0],
            }
        fed = images.tensor(batch=self._config.batch)
        noise = torch.randn(len(fed), ORIGINAL.latent_size, generator=torch.Generator())
        errors: dict[str, float] = {}

        def prepare(name: str, model: Any, example: Example) -> Callable[..., Any]:
            first = tuple(arg[: self._config.batch] for arg in as_args(example))
            assert isinstance(model, nn.Module)
            backend = self._backend if name == "candidate" else "eager"
            with lane.training():
                ready = prepare_backend(backend, model, first, threads=self._config.threads)
            errors[name] = ready.max_error
            return ready.run

        found, attempts = measure_interleaved(
            dict(models), "reference", (fed, noise), self._config, CPU,
            alone=lane.measuring, prepare=prepare,
        )  # fmt: skip
        return {**row(PairedLatency(found, attempts)), "error": errors["candidate"]}


def verdicts(folder: Path) -> list[str]:
    """Return a Markdown table of the engines, and a sentence about the goal for each batch size."""
    rows = [one for one in rows_of(folder).all if one["ratio"]]
    lines = ["| batch | engine | `modified` over eager `original` | largest error | busy machine |"]
    lines.append("|---|---|---|---|---|")
    for one in sorted(rows, key=lambda one: (int(one["batch"]), float(one["ratio"]))):
        ratio, low, high = (float(one[name]) for name in ("ratio", "low", "high"))
        lines.append(
            f"| {one['batch']} | {one['backend']} | {ratio:.2f} ({low:.2f} to {high:.2f}) | "
            f"{float(one['error']):.1g} | {'yes' if one['contention'] else ''} |"
        )
    lines.append("")
    for batch, goal in GOALS.items():
        if found := [one for one in rows if one["batch"] == str(batch)]:
            best = min(found, key=lambda one: float(one["ratio"]))
            reached = "reached" if float(best["ratio"]) <= goal else "not reached"
            lines.append(
                f"batch {batch}: {float(best['ratio']):.2f} in {best['backend']}, goal {goal}: "
                f"{reached}"
            )
    return lines


assert set(ENGINES) <= set(BACKENDS)
