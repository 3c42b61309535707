"""Inference times of both models, by our protocol and by the paper's protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import torch
from pydantic import BaseModel, ConfigDict

from nas.artefacts import write_or_refuse
from nas.latency import measure_together
from nas.setups import SetUp
from nas.timed_models import TimedImages, timed_model
from profiling.environment import fingerprint
from profiling.fresh_process import FreshProcess
from profiling.lane import Lane
from profiling.latency import batched
from profiling.paired import InterleavedLatencies
from profiling.timing import measuring, timer_for
from search_spaces.architecture import Architecture

BATCHES = (1, 32)

PAPERS_RUNS = {1: (1, 100), 32: (0, 5)}
"""Numbers of warm-ups and runs in the paper's notebook, by batch size."""

_LARGE_BATCH = 20
"""Factor of the time limit at batches above 1, where one pass can take ten seconds."""


class Timing(BaseModel):
    """Times at one batch size: ms of a full forward pass of the batch. Mappings are by model.

    Attributes:
        batch: Batch size.
        threads: Number of CPU threads.
        rounds: Number of measured rounds.
        median_ms: Median of the rounds that count.
        interval_ms: 95 % interval of the median.
        spread: Interquartile range over the median.
        slower: `modified` over `original`, paired by round: median, low, high of the 95 % interval.
        contention: Signs of disturbance by other work; empty for a quiet machine.
        papers_ms: Mean and population standard deviation by the paper's protocol.
        device_name: Device of the measurement.
        source: Models and settings; a measurement with another `source` is repeated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int
    threads: int
    rounds: int
    median_ms: dict[str, float]
    interval_ms: dict[str, tuple[float, float]]
    spread: dict[str, float]
    slower: tuple[float, float, float]
    contention: tuple[str, ...]
    papers_ms: dict[str, tuple[float, float]]
    device_name: str
    source: str


@dataclass(frozen=True)
class TrainedModels:
    """The models to be timed.

    Attributes:
        architectures: Name -> architecture, `original` among them.
        images: Images that they are fed.
        weights: Name -> file of trained weights.
    """

    architectures: Mapping[str, Architecture]
    images: TimedImages
    weights: Mapping[str, Path]


def load_or_measure(
    models: TrainedModels,
    latency: SetUp,
    device: torch.device,
    path: Path,
    progress: Callable[[int, int], None],
) -> Timing:
    """Return the measurement stored at `path`, or measure the models and store the result.

    A contended measurement is stored too: remove the file to measure again.
    """
    source = " ".join(
        [
            *(one.digest for one in models.architectures.values()),
            models.images.about,
            *(f"{name} trained" for name in sorted(models.weights)),
            latency.model_dump_json(),
            fingerprint(device).device_name,
            torch.__version__,
        ]
    )
    found = _read(path)
    if found is None or found.source != source:
        found = _measured(models, latency, device, source, progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_or_refuse(path, found.model_dump_json(indent=1).encode())
    return found


def config_for(latency: SetUp, batch: int) -> SetUp:
    """Return the configuration of a batch size: large batches get more time, fewer attempts."""
    if batch == 1:
        return latency.model_copy(update={"batch": 1})
    longer = {"max_s": _LARGE_BATCH * latency.max_s, "attempts": min(latency.attempts, 2)}
    return latency.model_copy(update={"batch": batch, **longer})


def _measured(
    models: TrainedModels,
    latency: SetUp,
    device: torch.device,
    source: str,
    progress: Callable[[int, int], None],
) -> Timing:
    turns = measure_together(
        models.architectures,
        "original",
        latency,
        device,
        models.images,
        models.weights,
        progress,
    )
    with FreshProcess(_AsThePaperDid, latency.threads, str(device), tuned=True) as process:
        papers = process.call("run", models, latency.batch)
    return _summary(turns, list(models.architectures), papers, latency, source)


def _summary(
    turns: InterleavedLatencies,
    names: list[str],
    papers: dict[str, list[float]],
    latency: SetUp,
    source: str,
) -> Timing:
    counted = {name: turns.counted(name) for name in names}
    slower = turns.ratio("modified", "original")
    return Timing(
        batch=latency.batch,
        threads=latency.threads,
        rounds=int(turns.rounds.sum()),
        median_ms={name: one.median_ms for name, one in counted.items()},
        interval_ms={name: tuple(one.interval_ms) for name, one in counted.items()},
        spread={name: one.spread for name, one in counted.items()},
        slower=(slower.median, *slower.interval),
        contention=turns.contention,
        papers_ms={name: (fmean(times), pstdev(times)) for name, times in papers.items()},
        device_name=counted["original"].environment.device_name,
        source=source,
    )


class _AsThePaperDid:
    """Times one model after the other, as in the paper's notebook; runs in a fresh process."""

    def __init__(self, thread_count: int, device: str) -> None:
        self._threads, self._device, self._lane = thread_count, torch.device(device), Lane(device)

    def run(self, models: TrainedModels, batch: int) -> dict[str, list[float]]:
        """Return the times of each model in ms."""
        return {name: self._times(models, name, batch) for name in models.architectures}

    def _times(self, models: TrainedModels, name: str, batch: int) -> list[float]:
        warm_ups, runs = PAPERS_RUNS[batch]
        architecture, weights = models.architectures[name], models.weights.get(name)
        with self._lane.training():
            model, _ = timed_model(architecture, models.images, self._device, weights)
        images = batched(models.images.tensor(), batch, self._device)
        timer = timer_for(self._device)
        with self._lane.measuring(), measuring([model], self._threads, self._device):
            times = [timer(lambda: model(*images)).wall_ms for _ in range(warm_ups + runs)]
        return times[warm_ups:]


def _read(path: Path) -> Timing | None:
    try:
        return Timing.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or damaged
        return None
