"""The latency of architectures, measured with `original` while the measurement lane is held."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

import torch
from torch import Tensor

from nas.datasets.cache import cache_directory
from nas.vae import build_vae
from profiling.environment import fingerprint, threads
from profiling.fresh_process import FreshProcess, ProcessEndedError
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.paired import (
    InterleavedLatencies,
    PairedLatency,
    compare_latency,
    measure_interleaved,
)
from profiling.progress import Progress
from profiling.quiet import QuietSpeed
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL


def quiet_speed(image_size: int, latency: LatencyConfig, device: torch.device) -> QuietSpeed:
    """Return the recorded quiet speed of `original` in this environment."""
    original = ORIGINAL.resized(image_size)
    with threads(latency.threads):
        where = fingerprint(device).model_dump_json()
    key = f"{where} {original.digest} {latency.batch}"
    name = sha256(key.encode()).hexdigest()[:16]
    return QuietSpeed(cache_directory() / "speeds" / f"{name}.json")


def measure_pair(
    architecture: Architecture, latency: LatencyConfig, device: torch.device, lane: Lane
) -> PairedLatency:
    """Time an architecture and `original` at its image size, while the lane is held."""
    original = ORIGINAL.resized(architecture.image_size)
    candidate, reference = (
        build_vae(described, seed=0).to(device) for described in (architecture, original)
    )
    return compare_latency(
        candidate,
        reference,
        one_image(architecture),
        latency,
        device,
        digests=(architecture.digest, original.digest),
        quiet=quiet_speed(architecture.image_size, latency, device),
        alone=lane.measuring,
    )


class Meter:
    """Measures latencies in a separate process.

    In a process that has trained, models run slower, and not all by the same factor, because their
    memory comes from blocks that the training has freed. The separate process starts with the first
    measurement.
    """

    def __init__(self, latency: LatencyConfig, device: torch.device) -> None:
        self._args = latency, str(device)
        self._process: FreshProcess | None = None

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        """Measure as `measure_pair` does; also return the seconds spent waiting for the lane.

        Raises:
            ProcessEndedError: the process ended; the next measurement starts another one.
        """
        self._process = self._process or FreshProcess(_Meter, *self._args, tuned=True)
        try:
            result: tuple[PairedLatency, float] = self._process.call("measure", architecture)
        except ProcessEndedError:
            self._process = None
            raise
        return result


class _Meter:
    """The part of `Meter` that runs in the other process."""

    def __init__(self, latency: LatencyConfig, device: str) -> None:
        self._latency, self._device, self._lane = latency, torch.device(device), Lane(device)

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        waited_s = self._lane.waited_s
        pair = measure_pair(architecture, self._latency, self._device, self._lane)
        return pair, self._lane.waited_s - waited_s

    def together(
        self,
        architectures: Mapping[str, Architecture],
        base: str,
        progress: Progress | None = None,
    ) -> InterleavedLatencies:
        models = {
            name: build_vae(architecture, seed=0).to(self._device)
            for name, architecture in architectures.items()
        }
        size = architectures[base].image_size
        found, _ = measure_interleaved(
            models,
            base,
            one_image(architectures[base]),
            self._latency.model_copy(update={"max_s": self._latency.max_s * len(models)}),
            self._device,
            quiet=quiet_speed(size, self._latency, self._device),
            alone=self._lane.measuring,
            progress=progress,
        )
        return found


def latency_metrics(pair: PairedLatency) -> dict[str, float]:
    """Return the metrics of a measurement that are recorded in addition to the latency."""
    metrics = {
        "latency_median_ms": pair.candidate.median_ms,
        "latency_spread": pair.candidate.spread,
        "latency_attempts": float(pair.attempts),
        "latency_over_original": pair.ratio.median,
        "latency_over_original_low": pair.ratio.interval.low,
        "latency_over_original_high": pair.ratio.interval.high,
    }
    if pair.candidate.device_median_ms is not None:
        metrics["latency_events_ms"] = pair.candidate.device_median_ms
    if pair.replayed:
        metrics["latency_graph_ms"] = pair.replayed.median_ms
    return metrics


def measure_anchor(image_size: int, latency: LatencyConfig, device: torch.device) -> float:
    """Return the anchor: the latency of `original` in ms at the machine's quiet speed."""
    pair, _ = Meter(latency, device).measure(ORIGINAL.resized(image_size))
    return pair.reference.median_ms


def measure_together(
    architectures: Mapping[str, Architecture],
    base: str,
    latency: LatencyConfig,
    device: torch.device,
    progress: Progress | None = None,
) -> InterleavedLatencies:
    """Time several architectures in the same rounds, so that any two of them can be compared.

    They are measured in a separate process.

    Args:
        architectures: Name -> architecture, `original` among them.
        base: The name of `original`.
        latency: How to measure; `max_s` applies to each architecture.
        device: Where to measure.
        progress: Called with (done, total) after each round.
    """
    with FreshProcess(_Meter, latency, str(device), tuned=True) as process:
        found: InterleavedLatencies = process.call(
            "together", dict(architectures), base, progress=progress
        )
        return found


def one_image(architecture: Architecture) -> Tensor:
    """Return a black image of the architecture's size, `(1, channels, size, size)`."""
    size = architecture.image_size
    return torch.zeros(1, architecture.image_channels, size, size)
