"""A model's latency beside a reference's: their ratio, how sure it is, and whether to trust it.

A machine changes speed within minutes, a ratio of two models that take turns hardly does. A twin of
the reference, identical to it, takes its turns as well: where the two differ, something other than
the models made the difference.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from statistics import median
from typing import Any

import torch
from torch import nn

from profiling.engines import as_cuda_graph
from profiling.intervals import median_interval
from profiling.latency import (
    Latency,
    LatencyConfig,
    Model,
    Ratio,
    batched,
    measure_latency,
    paired_ratio,
)
from profiling.symbolic import Example

TWIN_MARGIN = 0.01
"""What a twin's interval may stay away from 1 before the pair counts as disturbed."""


@dataclass(frozen=True)
class PairedLatency:
    """A candidate, a reference and the reference's twin, timed in the same rounds.

    Attributes:
        candidate: What was to be measured.
        reference: What its latency is told in.
        twin: A copy of the reference.
        attempts: How many measurements it took; all but the last were contended.
        replayed: The same two as CUDA graphs ("candidate", "reference"); empty elsewhere.
    """

    candidate: Latency
    reference: Latency
    twin: Latency
    attempts: int = 1
    replayed: Mapping[str, Latency] | None = None

    @cached_property
    def ratio(self) -> Ratio:
        """How many times as long the candidate takes as the reference."""
        return paired_ratio(self.candidate, self.reference)

    @cached_property
    def twin_ratio(self) -> Ratio:
        """The same of the reference's twin: 1, unless something disturbed the measurement."""
        return paired_ratio(self.twin, self.reference)

    @cached_property
    def contention(self) -> tuple[str, ...]:
        """Signs that something else disturbed the measurement; empty when it was quiet."""
        signs = dict.fromkeys([*self.candidate.contention, *self.reference.contention])
        if self.twin_ratio.interval.excludes(1.0, TWIN_MARGIN):
            low, high = self.twin_ratio.interval
            signs[f"a copy of the reference took {low:.3f} to {high:.3f} of its time"] = None
        return tuple(signs)

    @property
    def contended(self) -> bool:
        """Whether any sign of contention was seen."""
        return bool(self.contention)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: what was timed, where, and every sample."""
        parts = {"candidate": self.candidate, "reference": self.reference, "twin": self.twin}
        parts |= {f"replayed_{name}": one for name, one in (self.replayed or {}).items()}
        load = self.candidate.load
        return {
            "environment": self.candidate.environment.model_dump(mode="json"),
            "load": asdict(load) if load else None,
            "attempts": self.attempts,
            "contention": list(self.contention),
            "subjects": {name: asdict(one.subject) for name, one in parts.items()},
            "samples_ms": {name: list(one.samples_ms) for name, one in parts.items()},
            "cpu_ms": {name: [s.cpu_ms for s in one.samples] for name, one in parts.items()},
            "device_ms": {name: [s.device_ms for s in one.samples] for name, one in parts.items()},
        }


def compare_latency(
    candidate: Model,
    reference: Model,
    example: Example,
    config: LatencyConfig | None = None,
    device: torch.device | str = "cpu",
    *,
    digests: tuple[str, str] = ("", ""),
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> PairedLatency:
    """Time a candidate, a reference and the reference's twin in the same shuffled rounds.

    Rounds are added until the ratio's 95 % interval is within +-`config.precision` of it or
    `config.max_rounds` or `config.max_s` is reached. A contended measurement is repeated, up to
    `config.attempts` in all; if none is quiet, the one of the narrowest interval is kept, and its
    `contention` says what was seen. On CUDA the two are also timed as replayed graphs.

    Args:
        candidate: A module or callable.
        reference: A module or callable; a module is copied for its twin.
        example: As for `measure_latency`, for both.
        config: How to measure.
        device: Where both are.
        digests: What identifies candidate and reference.
        alone: Makes a context that is entered around each attempt, such as `Lane.measuring`.

    Raises:
        ProfilingError: as `measure_latency`.
    """
    config, device = config or LatencyConfig(), torch.device(device)
    models: dict[str, Model] = {
        "candidate": candidate,
        "reference": reference,
        "twin": copy.deepcopy(reference) if isinstance(reference, nn.Module) else reference,
    }
    if device.type == "cuda":
        models |= _graphs(models, example, config, device)
    best: PairedLatency | None = None
    for attempt in range(1, config.attempts + 1):
        with alone():
            taken = measure_latency(
                models,
                example,
                config,
                device,
                enough=partial(
                    precise_ratios,
                    names=("candidate",),
                    base="reference",
                    precision=config.precision,
                ),
            )
        found = replace(_paired(taken, digests), attempts=attempt)
        if not found.contended:
            return found
        best = found if best is None or _width(found) < _width(best) else best
    assert best is not None
    return replace(best, attempts=config.attempts)


def precise_ratios(
    walls: Mapping[str, list[float]], names: Iterable[str], base: str, precision: float
) -> bool:
    """Tell whether each named model's ratio to `base` is known to within +-`precision` of it.

    `walls` are the times of the rounds so far, in ms, by name.
    """
    for name in names:
        ratios = [a / b for a, b in zip(walls[name], walls[base], strict=True)]
        if median_interval(ratios).half_width(median(ratios)) > precision:
            return False
    return True


def _graphs(
    models: Mapping[str, Model], example: Example, config: LatencyConfig, device: torch.device
) -> dict[str, Model]:
    """Capture candidate and reference as CUDA graphs."""
    args = batched(example, config.batch, device)
    graphs: dict[str, Model] = {}
    for name in ("candidate", "reference"):
        model = models[name]
        if isinstance(model, nn.Module):
            with torch.inference_mode():
                graphs[f"replayed_{name}"] = as_cuda_graph(
                    copy.deepcopy(model).eval(), args, config.threads
                )[0]
    return graphs


def _paired(taken: Mapping[str, Latency], digests: tuple[str, str]) -> PairedLatency:
    candidate, reference = digests
    of = {"candidate": candidate, "reference": reference, "twin": reference}
    replayed = {}
    told = {}
    for name, latency in taken.items():
        bare = name.removeprefix("replayed_")
        subject = replace(latency.subject, digest=of[bare])
        if bare == name:
            told[name] = replace(latency, subject=subject)
        else:
            replayed[bare] = replace(latency, subject=replace(subject, backend="cuda_graph"))
    return PairedLatency(
        told["candidate"], told["reference"], told["twin"], replayed=replayed or None
    )


def _width(found: PairedLatency) -> float:
    return found.ratio.interval.half_width(found.ratio.median)
