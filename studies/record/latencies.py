"""Whether the latencies of a study in its several set-ups order architectures alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nas.objectives import Objective, set_up_of
from studies.record.records import StudyRecord, TrialRecord

_RESAMPLES = 500

FEWEST = 3
"""Smallest number of architectures whose orders are compared."""


@dataclass(frozen=True)
class Agreement:
    """How two latencies of the same architectures agree.

    Attributes:
        one, other: The latencies.
        models: Number of architectures, references included.
        tau: Kendall's tau-b of their orders: 1 is the same order, -1 the opposite one.
        interval: 95 % bootstrap interval of tau (percentiles, over architectures).
        reference: Name of the reference that is compared with; "" without one.
        faster_in_one, faster_in_other: Number of architectures that are faster than the reference
            in this set-up, but not in the other.
    """

    one: Objective
    other: Objective
    models: int
    tau: float
    interval: tuple[float, float]
    reference: str = ""
    faster_in_one: int = 0
    faster_in_other: int = 0


def latencies(study: StudyRecord) -> tuple[Objective, ...]:
    """Return the measured latencies that every complete trial has, in the order of the set-ups."""
    known = [*study.objectives, *study.recorded]
    found = {o.name: o for o in known if set_up_of(o.name) is not None}
    order = ["", *(study.config.get("setups") or {})]
    return tuple(sorted(found.values(), key=lambda o: order.index(set_up_of(o.name) or "")))


def agreements(study: StudyRecord) -> list[Agreement]:
    """Return the agreement of each pair of latencies; none with fewer than `FEWEST` models."""
    if len(study.complete) < FEWEST:
        return []
    return [_agreement(study, one, other) for one, other in combinations(latencies(study), 2)]


def _agreement(study: StudyRecord, one: Objective, other: Objective) -> Agreement:
    a, b = (np.array([t.objectives[o.name] for t in study.complete]) for o in (one, other))
    reference = next(iter(study.references.values()), None)
    tau, interval = kendall(a.tolist(), b.tolist())
    found = Agreement(one, other, len(a), tau, interval)
    if reference is None:
        return found
    first, second = (_faster(study.complete, reference, o) for o in (one, other))
    return Agreement(
        one, other, len(a), tau, interval,
        reference.name, len(first - second), len(second - first),
    )  # fmt: skip


def _faster(
    trials: Sequence[TrialRecord], reference: TrialRecord, latency: Objective
) -> frozenset[int]:
    limit = reference.objectives[latency.name]
    return frozenset(t.number for t in trials if t.objectives[latency.name] < limit)


def kendall(a: Sequence[float], b: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return Kendall's tau-b of two orders, and its 95 % bootstrap interval.

    Args:
        a: Values of the models.
        b: Other values of the same models, at least two.
    """
    from scipy.stats import kendalltau

    pairs = np.column_stack([a, b])
    draws = np.random.default_rng(0).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    taus = [kendalltau(*pairs[draw].T).statistic for draw in draws]
    low, high = np.nanquantile(taus, (0.025, 0.975))
    return float(kendalltau(a, b).statistic), (float(low), float(high))
