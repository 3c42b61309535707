"""The latency of architectures, measured with `original` while the measurement lane is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch

from nas.datasets.cache import cache_directory
from nas.timed_models import INITIAL, TimedImages, timed_model
from profiling.environment import fingerprint, threads
from profiling.fresh_process import FreshProcess, ProcessEndedError
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.paired import (
    TWIN,
    InterleavedLatencies,
    PairedLatency,
    compare_latency,
    measure_interleaved,
)
from profiling.progress import Progress
from profiling.quiet import QuietSpeed
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL


def quiet_speed(
    image_size: int,
    latency: LatencyConfig,
    device: torch.device,
    fed: str = "",
    weights: str = INITIAL,
) -> QuietSpeed:
    """Return the recorded quiet speed of `original` in this environment, on these inputs."""
    original = ORIGINAL.resized(image_size)
    with threads(latency.threads):
        where = fingerprint(device).model_dump_json()
    key = f"{where} {original.digest} {latency.batch} {fed} {weights}"
    name = sha256(key.encode()).hexdigest()[:16]
    return QuietSpeed(cache_directory() / "speeds" / f"{name}.json")


def measure_pair(
    architecture: Architecture,
    latency: LatencyConfig,
    device: torch.device,
    lane: Lane,
    images: TimedImages | None = None,
) -> PairedLatency:
    """Time an architecture and `original` at its image size, while the lane is held.

    Args:
        architecture: The candidate.
        latency: How to measure.
        device: Where to measure.
        lane: The measurement lane of the device.
        images: Images that both models are fed; None takes noise.
    """
    original = ORIGINAL.resized(architecture.image_size)
    images = images or TimedImages.noise(architecture.image_size, architecture.image_channels)
    # Calibrating BatchNorms would disturb the measurement of another process, as training does.
    with lane.training(), threads(latency.threads):
        (candidate, state), (reference, _) = (
            timed_model(one, images, device) for one in (architecture, original)
        )
    pair = compare_latency(
        candidate,
        reference,
        images.tensor(batch=latency.batch),
        latency,
        device,
        digests=(architecture.digest, original.digest),
        quiet=quiet_speed(architecture.image_size, latency, device, images.about),
        alone=lane.measuring,
    )
    states = {"candidate": state, "graph": state}
    return replace(pair, interleaved=_described(pair.interleaved, images.about, states))


class Meter:
    """Measures latencies in a separate process.

    In a process that has trained, models run slower, and not all by the same factor, because their
    memory comes from blocks that the training has freed. The separate process starts with the first
    measurement.

    Args:
        latency: How to measure.
        device: Where to measure.
        images: Images that the models are fed; None takes noise.
    """

    def __init__(
        self, latency: LatencyConfig, device: torch.device, images: TimedImages | None = None
    ) -> None:
        self._args = latency, str(device), images
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

    def __init__(self, latency: LatencyConfig, device: str, images: TimedImages | None) -> None:
        self._latency, self._device, self._lane = latency, torch.device(device), Lane(device)
        self._images = images

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        waited_s = self._lane.waited_s
        pair = measure_pair(architecture, self._latency, self._device, self._lane, self._images)
        return pair, self._lane.waited_s - waited_s

    def together(
        self,
        architectures: Mapping[str, Architecture],
        base: str,
        weights: Mapping[str, Path],
        progress: Progress | None = None,
    ) -> InterleavedLatencies:
        original, latency = architectures[base], self._latency
        images = self._images or TimedImages.noise(original.image_size, original.image_channels)
        with self._lane.training(), threads(latency.threads):
            built = {
                name: timed_model(architecture, images, self._device, weights.get(name))
                for name, architecture in architectures.items()
            }
        found, _ = measure_interleaved(
            {name: model for name, (model, _) in built.items()},
            base,
            images.tensor(batch=latency.batch),
            latency.model_copy(update={"max_s": latency.max_s * len(built)}),
            self._device,
            quiet=quiet_speed(
                original.image_size, latency, self._device, images.about, built[base][1]
            ),
            alone=self._lane.measuring,
            progress=progress,
        )
        states = {name: state for name, (_, state) in built.items()}
        return _described(found, images.about, states | {TWIN: states[base]})


def _described(
    found: InterleavedLatencies, fed: str, states: Mapping[str, str]
) -> InterleavedLatencies:
    """Return the latencies with a record of the images and of each model's weights."""
    taken = {
        name: replace(one, subject=replace(one.subject, fed=fed, weights=states.get(name, INITIAL)))
        for name, one in found.taken.items()
    }
    return replace(found, taken=taken)


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


def measure_anchor(
    image_size: int,
    latency: LatencyConfig,
    device: torch.device,
    images: TimedImages | None = None,
) -> float:
    """Return the anchor: the latency of `original` in ms at the machine's quiet speed."""
    pair, _ = Meter(latency, device, images).measure(ORIGINAL.resized(image_size))
    return pair.reference.median_ms


def measure_together(
    architectures: Mapping[str, Architecture],
    base: str,
    latency: LatencyConfig,
    device: torch.device,
    images: TimedImages | None = None,
    weights: Mapping[str, Path] | None = None,
    progress: Progress | None = None,
) -> InterleavedLatencies:
    """Time several architectures in the same rounds, so that any two of them can be compared.

    They are measured in a separate process.

    Args:
        architectures: Name -> architecture, `original` among them.
        base: The name of `original`.
        latency: How to measure; `max_s` applies to each architecture.
        device: Where to measure.
        images: Images that the models are fed; None takes noise.
        weights: Name -> file of trained weights; others are timed with initial weights.
        progress: Called with (done, total) after each round.
    """
    with FreshProcess(_Meter, latency, str(device), images, tuned=True) as process:
        found: InterleavedLatencies = process.call(
            "together", dict(architectures), base, dict(weights or {}), progress=progress
        )
        return found
