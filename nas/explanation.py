"""The time gap between two models, split into causes that add up to it.

**Where one model's time goes.** Each model is timed as it is; then with freed memory kept by the
allocator; then with one kind of operation after another taken away (`STEPS`, in this order), until
only Python and the module calls are left. What a step saves is the time of that kind. The savings
telescope: together with what is left they are the model's time, by construction.

**Causes.** With L the measured cost of an empty operation and M that of an empty module call:

- launches and framework: (operations launched) x L + (module calls) x M;
- concatenation, BatchNorm + activations, resampling, linear layers: their saving less their
  launches x L;
- arithmetic: MACs of all convolutions at the rate that the convolutions of model A achieve;
- efficiency of full, depthwise and pointwise convolutions: their saving, less launches x L, less
  their arithmetic at that rate; negative where they run faster than A's convolutions do;
- page faults of the allocator: time as it is less time with freed memory kept;
- remainder: what is then left of the model's time, and so unexplained.

A cause of the gap is the difference between the two models' terms. The same formulas are applied to
two other sources as a check: each kind taken away alone from the intact model, and the layer
table's times. Where these disagree with the steps, kinds share time (caches, freeing of memory) and
the split between them depends on the order.

Times are arrays of medians: element 0 is the estimate, the others are bootstrap draws over rounds,
so one formula yields the value and its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from profiling.ablation import Counts
from profiling.environment import Environment
from profiling.operations import Kind
from search_spaces.architecture import Architecture

Times = npt.NDArray[np.float64]
SideName = Literal["a", "b"]

STEPS: tuple[Kind, ...] = (
    *("concatenation", "activation", "batch_norm", "resampling"),
    *("linear", "pointwise", "depthwise", "convolution"),
)
"""The order in which kinds of operation are taken away; those that depend on no other first."""

CONVOLUTIONS: tuple[Kind, ...] = ("convolution", "depthwise", "pointwise")

CAUSES: dict[str, str] = {
    "arithmetic": "arithmetic of convolutions",
    "convolution": "efficiency of full convolutions",
    "depthwise": "efficiency of depthwise convolutions",
    "pointwise": "efficiency of pointwise convolutions",
    "concatenation": "memory traffic of concatenation",
    "normalisation": "BatchNorm and activations",
    "resampling": "resampling",
    "linear": "linear layers (heads, seed)",
    "overhead": "launches and framework",
    "allocator": "page faults of the allocator",
}
"""Every cause and what it is called; `REMAINDER` is what they leave."""

REMAINDER = "unexplained remainder"

_DRAWS = 1000


class Value(BaseModel):
    """Base of the results: frozen, equal by value, readable back from JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Value):
    """A measured number and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, times: Times) -> Self:
        """Take the value from element 0 and the interval from the other draws."""
        low, high = np.quantile(times[1:], (0.025, 0.975))
        return cls(value=float(times[0]), low=float(low), high=float(high))

    @property
    def clear(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


class Cause(Value):
    """One part of the gap (B minus A), in ms; `share` is its part of the whole gap.

    `alone_ms` and `layers_ms` are the gap by the two checks: kinds taken away alone, layer table.
    `contended` tells that something else disturbed a measurement behind it.
    """

    key: str
    a_ms: Estimate
    b_ms: Estimate
    gap_ms: Estimate
    share: float
    alone_ms: Estimate | None = None
    layers_ms: float | None = None
    contended: bool = False

    @property
    def title(self) -> str:
        """What the cause is called."""
        return CAUSES.get(self.key, REMAINDER)


class Step(Value):
    """One model after a step: its time, and what taking `kind` away saved, in order and alone."""

    kind: str
    left_ms: Estimate
    saved_ms: Estimate
    alone_ms: Estimate
    contended: bool = False


class Variant(Value):
    """The same model built in another way, as one could: what that would change."""

    title: str
    params: int
    macs: int
    ms: Estimate
    ratio: Estimate
    convolution_gmac_s: Estimate | None = None
    contended: bool = False


class Side(Value):
    """One of the two models: its exact counts for the whole batch, and its measured times.

    `page_faults` are minor faults per pass with the allocator as it is, `kept_page_faults` with
    freed memory kept. `explained_by_layers` is the layer table's share of `kept_ms`.
    """

    counts: Counts
    ms: Estimate
    kept_ms: Estimate
    page_faults: float
    kept_page_faults: float
    convolution_gmac_s: Estimate
    explained_by_layers: float
    steps: tuple[Step, ...]
    variants: tuple[Variant, ...]
    contention: tuple[str, ...]


class Comparison(Value):
    """The gap at one batch size. `rounds` were taken in all, of every subject."""

    batch: int
    rounds: int
    a: Side
    b: Side
    gap_ms: Estimate
    ratio: Estimate
    causes: tuple[Cause, ...]
    remainder: Cause
    launch_us: Estimate
    call_us: Estimate

    @property
    def explained_share(self) -> float:
        """How much of the gap the named causes add up to; 1 means all of it."""
        return 1 - self.remainder.share

    @property
    def contended(self) -> bool:
        """Whether either model's own time was disturbed."""
        return bool(self.a.contention or self.b.contention)


class Explanation(Value):
    """Why `b` takes another time than `a`, at each batch size; reads itself back from JSON."""

    a_name: str
    b_name: str
    a: Architecture
    b: Architecture
    threads: int
    gemm_gmac_s: float
    environment: Environment
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Tick:
    """What an empty operation and an empty module call cost, in ms."""

    launch_ms: Times
    call_ms: Times


def bootstrap(samples: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Times]:
    """Return each subject's median, then medians over resampled rounds, the same for all.

    Args:
        samples: subject to times, as many for each, taken in the same rounds.
        seed: of the resampling.
    """
    rounds = len(next(iter(samples.values())))
    draws = np.random.default_rng(seed).integers(rounds, size=(_DRAWS, rounds))
    chosen = np.vstack([np.arange(rounds), draws])
    return {name: np.median(np.asarray(taken)[chosen], axis=1) for name, taken in samples.items()}


def work_ms(spent: Mapping[Kind, Times], counts: Counts, tick: Tick) -> dict[Kind, Times]:
    """Return what each kind takes beyond its launches."""
    return {
        kind: spent[kind] - counts.launches_of.get(kind, 0) * tick.launch_ms for kind in STEPS
    }


def ms_per_mac(spent: Mapping[Kind, Times], counts: Counts, tick: Tick) -> Times:
    """Return the time of one MAC in the model's convolutions, all kinds together."""
    work, macs = work_ms(spent, counts, tick), _convolution_macs(counts)
    total: Times = sum((work[kind] for kind in CONVOLUTIONS), np.zeros(1))
    return np.maximum(total, 0) / max(1, macs)


def terms(
    spent: Mapping[Kind, Times], counts: Counts, tick: Tick, mac_ms: Times
) -> dict[str, Times]:
    """Split a model's time into the terms of the causes, the allocator's apart.

    Args:
        spent: time of each kind of operation, in ms, launches included.
        counts: of the same model and batch.
        tick: cost of launches and calls.
        mac_ms: time of one MAC at the rate everything is compared with.
    """
    work = work_ms(spent, counts, tick)
    ideal = {kind: counts.macs_of.get(kind, 0) * mac_ms for kind in CONVOLUTIONS}
    overhead = counts.launches * tick.launch_ms + counts.calls * tick.call_ms
    return {
        "arithmetic": _convolution_macs(counts) * mac_ms,
        **{kind: work[kind] - ideal[kind] for kind in CONVOLUTIONS},
        "concatenation": work["concatenation"],
        "normalisation": work["batch_norm"] + work["activation"],
        "resampling": work["resampling"],
        "linear": work["linear"],
        "overhead": overhead,
    }


def split(
    a: Mapping[str, Times], b: Mapping[str, Times], checks: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[Cause, ...], Cause]:
    """Return the causes of the gap in falling order of size, and the remainder.

    Args:
        a: terms of model A, among them "total", its time.
        b: the same of model B.
        checks: under "alone" (arrays) and "layers" (numbers) the gap by the two checks, and under
            "contended" whether a cause's measurements were disturbed; each by cause.
    """
    gap = b["total"] - a["total"]
    named = {key: (a[key], b[key]) for key in CAUSES}
    rest = tuple(side["total"] - sum(side[key] for key in CAUSES) for side in (a, b))
    causes = [_cause(key, *pair, gap, checks) for key, pair in named.items()]
    ordered = sorted(causes, key=lambda cause: -abs(cause.gap_ms.value))
    return tuple(ordered), _cause("remainder", rest[0], rest[1], gap, checks)


def _cause(
    key: str, a: Times, b: Times, gap: Times, checks: Mapping[str, Mapping[str, Any]]
) -> Cause:
    alone, layers = checks["alone"].get(key), checks["layers"].get(key)
    return Cause(
        key=key,
        a_ms=Estimate.of(a),
        b_ms=Estimate.of(b),
        gap_ms=Estimate.of(b - a),
        share=float((b - a)[0] / gap[0]) if gap[0] else 0.0,
        alone_ms=None if alone is None else Estimate.of(alone),
        layers_ms=None if layers is None else float(layers),
        contended=bool(checks["contended"].get(key, False)),
    )


def _convolution_macs(counts: Counts) -> int:
    return _total(counts.macs_of.get(kind, 0) for kind in CONVOLUTIONS)


def _total(numbers: Iterable[int]) -> int:
    return sum(numbers)
