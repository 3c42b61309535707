"""The latency of architectures, measured with `original` while the measurement lane is held."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from nas.datasets.cache import cache_directory
from nas.setups import Engines, SetUp, engines, inputs_of, part_of
from nas.timed_models import INITIAL, TimedImages, timed_model
from nas.vae import VAE
from profiling.environment import fingerprint, threads
from profiling.fresh_process import FreshProcess, ProcessEndedError
from profiling.lane import Lane
from profiling.paired import (
    TWIN,
    InterleavedLatencies,
    PairedLatency,
    compare_latency,
    measure_interleaved,
)
from profiling.progress import Progress
from profiling.quiet import QuietSpeed
from profiling.symbolic import Example
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL


def quiet_speed(
    original: Architecture,
    setup: SetUp,
    device: torch.device,
    fed: str = "",
    weights: str = INITIAL,
) -> QuietSpeed:
    """Return the recorded quiet speed of `original` in this environment, on these inputs."""
    with threads(setup.threads):
        where = fingerprint(device).model_dump_json()
    what = f"{setup.batch} {setup.differing} {setup.runtime}"
    key = f"{where} {original.digest} {what} {fed} {weights}"
    name = sha256(key.encode()).hexdigest()[:16]
    return QuietSpeed(cache_directory() / "speeds" / f"{name}.json")


def measure_pair(
    architecture: Architecture,
    setup: SetUp,
    device: torch.device,
    lane: Lane,
    images: TimedImages | None = None,
    prepare: Engines | None = None,
) -> PairedLatency:
    """Time an architecture and `original` on images of its shape, while the lane is held.

    Args:
        architecture: The candidate.
        setup: What to measure, and how.
        device: Where to measure.
        lane: The measurement lane of the device.
        images: Images that both models are fed; None takes noise.
        prepare: Makes the engines; it may keep those of "reference" and "twin" for the next call.

    Raises:
        EngineRefused: the backend cannot run the architecture.
    """
    original = ORIGINAL.resized(architecture.image_size, architecture.image_channels)
    images = images or TimedImages.noise(architecture.image_size, architecture.image_channels)
    # Calibrating BatchNorms would disturb the measurement of another process, as training does.
    with lane.training(), threads(setup.threads):
        fed = images.tensor(batch=setup.batch)
        candidate, reference = (
            _Subject.of(timed_model(one, images, device), fed, setup)
            for one in (architecture, original)
        )
    pair = compare_latency(
        candidate.model,
        reference.model,
        {"candidate": candidate.inputs, "reference": reference.inputs},
        setup,
        device,
        digests=(architecture.digest, original.digest),
        quiet=quiet_speed(original, setup, device, images.about),
        alone=lane.measuring,
        prepare=prepare or engines(setup, device, lane),
    )
    weights = {"candidate": candidate.weights, "graph": candidate.weights}
    return replace(pair, interleaved=_described(pair.interleaved, setup, images.about, weights))


@dataclass(frozen=True)
class _Subject:
    """What is timed of an architecture, its inputs, and a description of its weights."""

    model: nn.Module
    inputs: Example
    weights: str

    @classmethod
    def of(cls, built: tuple[VAE, str], images: Tensor, setup: SetUp) -> Self:
        model, weights = built
        return cls(part_of(model, setup.part), inputs_of(model, images, setup), weights)


class Meter:
    """Measures latencies in a separate process.

    In a process that has trained, models run slower, and not all by the same factor, because their
    memory comes from blocks that the training has freed. The separate process starts with the first
    measurement.

    Args:
        setup: What to measure, and how.
        device: Where to measure.
        images: Images that the models are fed; None takes noise.
    """

    def __init__(
        self, setup: SetUp, device: torch.device, images: TimedImages | None = None
    ) -> None:
        self._args = setup, str(device), images
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

    def __init__(self, setup: SetUp, device: str, images: TimedImages | None) -> None:
        self._setup, self._device, self._lane = setup, torch.device(device), Lane(device)
        self._images = images
        self._prepare = engines(setup, self._device, self._lane, keep=("reference", TWIN))

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        waited_s = self._lane.waited_s
        pair = measure_pair(
            architecture, self._setup, self._device, self._lane, self._images, self._prepare
        )
        return pair, self._lane.waited_s - waited_s

    def together(
        self,
        architectures: Mapping[str, Architecture],
        base: str,
        weights: Mapping[str, Path],
        progress: Progress | None = None,
    ) -> InterleavedLatencies:
        original, setup = architectures[base], self._setup
        images = self._images or TimedImages.noise(original.image_size, original.image_channels)
        with self._lane.training(), threads(setup.threads):
            fed = images.tensor(batch=setup.batch)
            subjects = {
                name: _Subject.of(
                    timed_model(architecture, images, self._device, weights.get(name)), fed, setup
                )
                for name, architecture in architectures.items()
            }
        states = {name: one.weights for name, one in subjects.items()}
        found, _ = measure_interleaved(
            {name: one.model for name, one in subjects.items()},
            base,
            {name: one.inputs for name, one in subjects.items()},
            setup.model_copy(update={"max_s": setup.max_s * len(subjects)}),
            self._device,
            quiet=quiet_speed(original, setup, self._device, images.about, states[base]),
            alone=self._lane.measuring,
            prepare=engines(setup, self._device, self._lane),
            progress=progress,
        )
        return _described(found, setup, images.about, states | {TWIN: states[base]})


def _described(
    found: InterleavedLatencies, setup: SetUp, fed: str, states: Mapping[str, str]
) -> InterleavedLatencies:
    """Return the latencies with a record of the set-up, the images and each model's weights."""
    taken = {}
    for name, one in found.taken.items():
        subject = replace(
            one.subject,
            backend=one.subject.backend if name == "graph" else setup.backend,
            precision=setup.precision,
            part=setup.part,
            fed=fed,
            weights=states.get(name, INITIAL),
        )
        taken[name] = replace(one, subject=subject)
    return replace(found, taken=taken)


def latency_metrics(pair: PairedLatency, setup: str = "") -> dict[str, float]:
    """Return the metrics of a measurement that are recorded in addition to the latency.

    Args:
        pair: The measurement.
        setup: Name of a further set-up; the names of its metrics end with `:NAME`.
    """
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
    return {f"{name}:{setup}" if setup else name: value for name, value in metrics.items()}


def measure_anchor(
    original: Architecture,
    setup: SetUp,
    device: torch.device,
    images: TimedImages | None = None,
) -> float:
    """Return the anchor: the latency of `original` in ms at the machine's quiet speed.

    Raises:
        EngineRefused: the backend cannot run `original`.
    """
    pair, _ = Meter(setup, device, images).measure(original)
    return pair.reference.median_ms


def measure_together(
    architectures: Mapping[str, Architecture],
    base: str,
    setup: SetUp,
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
        setup: What to measure, and how; `max_s` applies to each architecture.
        device: Where to measure.
        images: Images that the models are fed; None takes noise.
        weights: Name -> file of trained weights; others are timed with initial weights.
        progress: Called with (done, total) after each round.
    """
    with FreshProcess(_Meter, setup, str(device), images, tuned=True) as process:
        found: InterleavedLatencies = process.call(
            "together", dict(architectures), base, dict(weights or {}), progress=progress
        )
        return found
