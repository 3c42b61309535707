"""The time gap between two models, split into causes that add up to it.

**Where one model's time goes.** Each model is timed as it is; then with freed memory kept by the
allocator; then with one kind of operation after another taken away (in the order of
`ABLATION_ORDER`), until only Python and the module calls are left. What a step saves is the time of
that kind. The savings telescope: together with what is left they are the model's time, by
construction.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.explain.explanation import (
    ABLATION_ORDER,
    CAUSES,
    CONVOLUTION_GROUPS,
    Cause,
    Estimate,
    Times,
)
from profiling.ablation import Counts
from profiling.kinds import KindGroup

_DRAWS = 1000


@dataclass(frozen=True)
class Tick:
    """The cost of an empty operation and of an empty module call, in ms."""

    launch_ms: Times
    call_ms: Times


def bootstrap(samples: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Times]:
    """Return each subject's median, then medians over resampled rounds, the same for all.

    Rounds are normalised first. In a slow round all subjects are slow together, which says nothing
    about their differences; so every time is divided by the slowness of its round, the median over
    subjects of time over the subject's own median. Drawing the same rounds for all subjects keeps
    what is left of that correlation.

    Args:
        samples: subject to times, as many for each, taken in the same rounds.
        seed: of the resampling.
    """
    times = np.array(list(samples.values()), dtype=np.float64)  # (subjects, rounds)
    pace = np.median(times / np.median(times, axis=1, keepdims=True), axis=0)
    levelled, rounds = times / pace, times.shape[1]
    draws = np.random.default_rng(seed).integers(rounds, size=(_DRAWS, rounds))
    chosen = np.vstack([np.arange(rounds), draws])
    return {
        name: np.median(taken[chosen], axis=1)
        for name, taken in zip(samples, levelled, strict=True)
    }


def work_ms(spent: Mapping[KindGroup, Times], counts: Counts, tick: Tick) -> dict[KindGroup, Times]:
    """Return what each kind takes beyond its launches."""
    return {
        kind: spent[kind] - counts.launches_of.get(kind, 0) * tick.launch_ms
        for kind in ABLATION_ORDER
    }


def ms_per_mac(spent: Mapping[KindGroup, Times], counts: Counts, tick: Tick) -> Times:
    """Return the time of one MAC in the model's convolutions, all kinds together."""
    work, macs = work_ms(spent, counts, tick), _convolution_macs(counts)
    total: Times = sum((work[kind] for kind in CONVOLUTION_GROUPS), np.zeros(1))
    return np.maximum(total, 0) / max(1, macs)


def terms(
    spent: Mapping[KindGroup, Times], counts: Counts, tick: Tick, mac_ms: Times
) -> dict[str, Times]:
    """Split a model's time into the terms of the causes, the allocator's apart.

    Args:
        spent: time of each kind of operation, in ms, launches included.
        counts: of the same model and batch.
        tick: cost of launches and calls.
        mac_ms: time of one MAC at the rate everything is compared with.
    """
    work = work_ms(spent, counts, tick)
    ideal = {kind: counts.macs_of.get(kind, 0) * mac_ms for kind in CONVOLUTION_GROUPS}
    overhead = counts.launches * tick.launch_ms + counts.calls * tick.call_ms
    return {
        "arithmetic": _convolution_macs(counts) * mac_ms,
        **{kind: work[kind] - ideal[kind] for kind in CONVOLUTION_GROUPS},
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
    return sum(counts.macs_of.get(kind, 0) for kind in CONVOLUTION_GROUPS)
