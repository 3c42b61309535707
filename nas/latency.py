"""The latency of architectures, measured with `original` while the measurement lane is held."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from nas.host_meter import HostMeter, measure_pair
from nas.setups import SetUp
from nas.target_meter import TargetMeter
from nas.timed_models import TimedImages
from profiling.errors import ProfilingError
from profiling.fresh_process import FreshProcess, ProcessEndedError
from profiling.paired import InterleavedLatencies, PairedLatency
from profiling.progress import Progress
from profiling.target.addresses import Address, find_address
from profiling.target.client import KnownTarget
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

__all__ = [
    "Meter",
    "Place",
    "address_of",
    "latency_metrics",
    "measure_anchor",
    "measure_pair",
    "measure_together",
    "note_at",
]

Place = torch.device | KnownTarget
"""Where latency is measured: a device of this machine, or another machine."""


def address_of(target: str, named: str = "latency.target") -> Address:
    """Return the address of a target in the user's list.

    Args:
        target: Its name.
        named: What the user calls the setting, for the message.

    Raises:
        UserError: the list has no such target.
    """
    try:
        return find_address(target)
    except ProfilingError as error:
        raise UserError(f"{named}: {error}") from None


class Meter:
    """Measures latencies in a separate process.

    In a process that has trained, models run slower, and not all by the same factor, because their
    memory comes from blocks that the training has freed. The separate process starts with the first
    measurement.

    Args:
        setup: What to measure, and how.
        where: Where to measure.
        images: Images that the models are fed; None takes noise.
    """

    def __init__(self, setup: SetUp, where: Place, images: TimedImages | None = None) -> None:
        self._setup, self._where, self._images = setup, where, images
        self._process: FreshProcess | None = None

    def measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        """Measure as `measure_pair` does; also return the seconds spent waiting.

        They are those for the lane, and for a target that cannot be reached or is busy.

        Raises:
            ProcessEndedError: the process ended; the next measurement starts another one.
            EngineRefused: the backend cannot run the architecture.
            TargetError: the target cannot be used.
        """
        self._process = self._process or _process(self._setup, self._where, self._images)
        try:
            result: tuple[PairedLatency, float] = self._process.call(
                "measure", architecture, note=note_at(self._where)
            )
        except ProcessEndedError:
            self._process = None
            raise
        return result


def _process(setup: SetUp, where: Place, images: TimedImages | None) -> FreshProcess:
    """Return the process that measures at a place."""
    if isinstance(where, KnownTarget):
        return FreshProcess(TargetMeter, setup, where, images)
    if setup.target:
        raise ProfilingError(f"latency.target: {setup.target} is not used here; leave it out")
    return FreshProcess(HostMeter, setup, str(where), images, tuned=True)


def note_at(where: Place | None) -> Callable[[str], None] | None:
    """Return the function that reports what happens to a target; None on this machine."""
    return _warn if isinstance(where, KnownTarget) else None


def _warn(line: str) -> None:
    # Unlike `warnings.warn`, this shows a line again that was shown before.
    warnings.warn_explicit(line, RuntimeWarning, __file__, 0)


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
    where: Place,
    images: TimedImages | None = None,
) -> float:
    """Return the anchor: the latency of `original` in ms at the machine's quiet speed.

    Raises:
        EngineRefused: the backend cannot run `original`.
        TargetError: the target cannot be used.
    """
    pair, _ = Meter(setup, where, images).measure(original)
    return pair.reference.median_ms


def measure_together(
    architectures: Mapping[str, Architecture],
    base: str,
    setup: SetUp,
    where: Place,
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
        where: Where to measure.
        images: Images that the models are fed; None takes noise.
        weights: Name -> file of trained weights; others are timed with initial weights.
        progress: Called with (done, total) after each round.

    Raises:
        EngineRefused: the backend cannot run one of them.
        TargetError: the target cannot be used.
    """
    args = dict(architectures), base, dict(weights or {})
    with _process(setup, where, images) as process:
        found: InterleavedLatencies = process.call(
            "together", *args, progress=progress, note=note_at(where)
        )
        return found
