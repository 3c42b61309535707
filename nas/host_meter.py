"""Latencies of architectures on a device of this machine, in the measuring process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from nas.setups import Engines, SetUp, engines
from nas.timed_models import TimedImages, timed_model
from nas.timed_parts import TimedPart, described, quiet_speed
from profiling.environment import fingerprint, threads
from profiling.lane import Lane
from profiling.paired import (
    TWIN,
    InterleavedLatencies,
    PairedLatency,
    compare_latency,
    measure_interleaved,
)
from profiling.progress import Progress
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL


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
            TimedPart.of(timed_model(one, images, device), fed, setup)
            for one in (architecture, original)
        )
    pair = compare_latency(
        candidate.module,
        reference.module,
        {"candidate": candidate.inputs, "reference": reference.inputs},
        setup,
        device,
        digests=(architecture.digest, original.digest),
        quiet=quiet_speed(original, setup, environment_of(setup, device), images.about),
        alone=lane.measuring,
        prepare=prepare or engines(setup, device, lane),
    )
    weights = {"candidate": candidate.weights, "graph": candidate.weights}
    return replace(pair, interleaved=described(pair.interleaved, setup, images.about, weights))


def environment_of(setup: SetUp, device: torch.device) -> str:
    """Return the description of the environment in which a set-up measures on a device."""
    with threads(setup.threads):
        return fingerprint(device).model_dump_json()


class HostMeter:
    """Measures latencies on a device; `nas.latency.Meter` calls it in another process.

    Args:
        setup: What to measure, and how.
        device: Name of the device.
        images: Images that the models are fed; None takes noise.
    """

    def __init__(self, setup: SetUp, device: str, images: TimedImages | None) -> None:
        self._setup, self._device, self._lane = setup, torch.device(device), Lane(device)
        self._images = images
        self._prepare = engines(setup, self._device, self._lane, keep=("reference", TWIN))

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        """Return what `measure_pair` returns, and the seconds spent waiting for the lane."""
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
        """Measure several architectures in the same rounds, as `nas.latency.measure_together`."""
        original, setup = architectures[base], self._setup
        images = self._images or TimedImages.noise(original.image_size, original.image_channels)
        with self._lane.training(), threads(setup.threads):
            fed = images.tensor(batch=setup.batch)
            parts = {
                name: TimedPart.of(
                    timed_model(architecture, images, self._device, weights.get(name)), fed, setup
                )
                for name, architecture in architectures.items()
            }
        states = {name: one.weights for name, one in parts.items()}
        where = environment_of(setup, self._device)
        found, _ = measure_interleaved(
            {name: one.module for name, one in parts.items()},
            base,
            {name: one.inputs for name, one in parts.items()},
            setup.model_copy(update={"max_s": setup.max_s * len(parts)}),
            self._device,
            quiet=quiet_speed(original, setup, where, images.about, states[base]),
            alone=self._lane.measuring,
            prepare=engines(setup, self._device, self._lane),
            progress=progress,
        )
        return described(found, setup, images.about, states | {TWIN: states[base]})
