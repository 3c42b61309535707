"""The latency of architectures, always beside `original` and alone in the measurement lane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import torch
from torch import Tensor

from nas.vae import build_vae
from profiling.lane import Lane
from profiling.latency import Latency, LatencyConfig, measure_latency
from profiling.paired import PairedLatency, compare_latency, precise_ratios
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL


def measure_pair(
    architecture: Architecture, latency: LatencyConfig, device: torch.device, lane: Lane
) -> PairedLatency:
    """Time an architecture in turn with `original` at its image size, alone in the lane."""
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
        alone=lane.measuring,
    )


def latency_metrics(pair: PairedLatency) -> dict[str, float]:
    """Return what is recorded of a measurement beside the latency itself."""
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
        metrics["latency_graph_ms"] = pair.replayed["candidate"].median_ms
    return metrics


def measure_anchor(image_size: int, latency: LatencyConfig, device: torch.device) -> float:
    """Return the latency of `original` in ms: the median of three measurements.

    One alone may fall into the moments in which a fresh process is still slow.
    """
    model = {"original": build_vae(ORIGINAL.resized(image_size), seed=0).to(device)}
    image = one_image(ORIGINAL.resized(image_size))
    with Lane(str(device)).measuring():
        taken = [measure_latency(model, image, latency, device)["original"] for _ in range(3)]
    return median(one.median_ms for one in taken)


def measure_together(
    architectures: Mapping[str, Architecture],
    base: str,
    latency: LatencyConfig,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Latency]:
    """Time several architectures in the same rounds, so that any two of them compare.

    Rounds are added until the ratio of each to `base` is within +-`latency.precision`, or
    `latency.max_rounds` is reached, or `latency.max_s` for each of them. Contended measurements
    are repeated as for a pair; if none is quiet the last is returned.
    """
    models = {
        name: build_vae(architecture, seed=0).to(device)
        for name, architecture in architectures.items()
    }
    allowed = latency.model_copy(update={"max_s": latency.max_s * len(models)})
    image, lane = one_image(architectures[base]), Lane(str(device))
    enough = partial(precise_ratios, names=models, base=base, precision=latency.precision)
    for _ in range(latency.attempts):
        with lane.measuring():
            taken = measure_latency(
                models, image, allowed, device, enough=enough, progress=progress
            )
        if not any(one.contended for one in taken.values()):
            break
    return taken


def one_image(architecture: Architecture) -> Tensor:
    """Return a black image of the architecture's size, shape (1, channels, size, size)."""
    size = architecture.image_size
    return torch.zeros(1, architecture.image_channels, size, size)
