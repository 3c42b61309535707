"""Split the latency gap between two models into causes that add up to it.

**Steps of the ablation.** Each model is timed as it is, then with freed memory kept by the
allocator, then with one kind of operation after another removed (in the order of `ABLATION_ORDER`),
until only Python and the module calls remain. The time saved by a step is the time of that kind.
By construction, the savings and the time that remains add up to the latency of the model.

**Causes.** Let L be the measured cost of an empty operation and M that of an empty module call.

- Launches and framework: (operations launched) x L + (module calls) x M.
- Concatenation, BatchNorm + activations, resampling, linear layers: their saving minus their
  launches x L.
- Arithmetic: the MACs of all convolutions, at the rate of the convolutions of model A.
- Efficiency of full, depthwise and pointwise convolutions: their saving, minus launches x L, minus
  their arithmetic at that rate. It is negative if they are faster than the convolutions of A.
- Page faults of the allocator: latency as it is, minus latency with freed memory kept.
- Remainder: the rest of the latency, which is unexplained.

A cause of the gap is the difference of the terms of both models. As a check, the same formulas are
applied to two other sources of times: each kind removed alone, and the layer table. Where these
differ from the steps, kinds share time (caches, freeing of memory), and the split between them
depends on the order.

Times are arrays of medians: element 0 is the estimate, the others are bootstrap draws over rounds.
One formula therefore gives the value and its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.explain.explanation import (
    ABLATION_ORDER,
    CAUSES,
    Cause,
    Estimate,
    Times,
)
from profiling.ablation import Counts
from profiling.kinds import CONVOLUTION_GROUPS, KindGroup

_DRAWS = 1000


@dataclass(frozen=True)
class UnitCosts:
    """The cost of an empty operation and of an empty module call, in ms."""

    launch_ms: Times
    call_ms: Times


def bootstrap(samples: Mapping[str, Sequence[float]], seed: int = 0) -> dict[str, Times]:
    """Return the median of each subject, followed by bootstrap draws of it.

    Rounds are normalised first. In a slow round all subjects are slow, which has no influence on
    their differences. So every time is divided by the slowness of its round: the median over
    subjects of time over the subject's own median. The same rounds are drawn for all subjects,
    which preserves the remaining correlation (paired bootstrap).

    Args:
        samples: Subject -> times, one for each round.
        seed: Seed of the resampling.

    Returns:
        Subject -> `(draws + 1,)`; element 0 is the median of all rounds.
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


def work_ms(
    spent: Mapping[KindGroup, Times], counts: Counts, unit: UnitCosts
) -> dict[KindGroup, Times]:
    """Return the time of each kind without its launches."""
    return {
        kind: spent[kind] - counts.launches_of.get(kind, 0) * unit.launch_ms
        for kind in ABLATION_ORDER
    }


def ms_per_mac(spent: Mapping[KindGroup, Times], counts: Counts, unit: UnitCosts) -> Times:
    """Return the time of one MAC, an average over all convolutions of the model."""
    work, macs = work_ms(spent, counts, unit), _convolution_macs(counts)
    total: Times = sum((work[kind] for kind in CONVOLUTION_GROUPS), np.zeros(1))
    return np.maximum(total, 0) / max(1, macs)


def terms(
    spent: Mapping[KindGroup, Times], counts: Counts, unit: UnitCosts, mac_ms: Times
) -> dict[str, Times]:
    """Split a model's time into the terms of the causes, except that of the allocator.

    Args:
        spent: Time of each kind of operation in ms, including launches.
        counts: Counts of the same model and batch.
        unit: Cost of launches and calls.
        mac_ms: Time of one MAC at the rate of model A.
    """
    work = work_ms(spent, counts, unit)
    ideal = {kind: counts.macs_of.get(kind, 0) * mac_ms for kind in CONVOLUTION_GROUPS}
    overhead = counts.launches * unit.launch_ms + counts.calls * unit.call_ms
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
    """Return the causes of the gap in descending order of size, and the remainder.

    Args:
        a: Terms of model A, including "total", its latency.
        b: Terms of model B.
        checks: Three mappings by cause: "alone" (arrays) and "layers" (numbers) have the gap by the
            two checks, "contended" says whether measurements were contended.
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
