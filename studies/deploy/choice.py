"""Which variant of a model is deployed, and why the others are not.

A variant may cost a stated share of the loss. Of those within it the fastest is deployed; of those
that are not measurably slower, the one that costs least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from nas.deploy.quality import Quality
from nas.deploy.variants import Built, Variant
from profiling.backends import INT8
from profiling.latency import Ratio
from studies.record.formats import format_percent

FLOAT_COST = 0.001
"""Share of the loss that a variant in float32 or bfloat16 may cost."""

INT8_COST = 0.01
"""Share of the loss that a variant in int8 may cost, by default."""

WORST = 10
"""The loss of a single image may grow by this many times the share of the mean loss."""

_SAME_COST = 1e-4
"""Costs that differ by less are equal: rounding differs between runtimes."""

Over = Callable[[Variant, Variant], Ratio]
"""Returns the latency of a variant over that of another one, measured in the same rounds."""


@dataclass(frozen=True)
class Bounds:
    """What a variant may cost.

    Attributes:
        int8: Share of the loss in int8.
        floating: Share of the loss in float32 and bfloat16.
    """

    int8: float = INT8_COST
    floating: float = FLOAT_COST

    def of(self, variant: Variant) -> float:
        """Return the share of the loss that a variant may cost."""
        return self.int8 if variant.precision == INT8 else self.floating

    def reason_against(self, variant: Variant, quality: Quality) -> str | None:
        """Return why a variant costs too much; None if it does not."""
        most = self.of(variant)
        if not quality.cost <= most:
            cost, allowed = format_percent(quality.cost), format_percent(most)
            return f"costs {cost} of the loss; {allowed} is allowed"
        if not quality.worst <= WORST * most:
            cost, allowed = format_percent(quality.worst), format_percent(WORST * most)
            return f"costs {cost} of the loss of one image; {allowed} is allowed"
        return None


def best(candidates: Sequence[Built], latency_ms: Callable[[Variant], float], over: Over) -> Built:
    """Return the variant to deploy of those that may be.

    Args:
        candidates: At least one variant; each is within the bounds.
        latency_ms: Returns the latency of a variant.
        over: Compares two variants.
    """
    fastest = min(candidates, key=lambda one: latency_ms(one.variant))
    tied = [one for one in candidates if not certainly_slower(one, fastest, over)]

    def rank(one: Built) -> tuple[int, float]:
        return round(max(one.quality.cost, 0) / _SAME_COST), latency_ms(one.variant)

    return min(tied, key=rank)


def certainly_slower(one: Built, other: Built, over: Over) -> bool:
    """Whether the whole interval of the ratio of two latencies is above 1."""
    return one is not other and over(one.variant, other.variant).interval.low > 1


def reason_beside(one: Built, chosen: Built, over: Over) -> str:
    """Return why a variant within the bounds is not the chosen one."""
    ratio = over(one.variant, chosen.variant)
    low, high = ratio.interval
    if low > 1:
        return (
            f"takes {ratio.median:.2f}x [{low:.2f}, {high:.2f}] of the time of "
            f"{chosen.variant.name}"
        )
    lost = one.quality.cost - chosen.quality.cost
    if lost > _SAME_COST:
        return (
            f"is not measurably faster than {chosen.variant.name}, and costs "
            f"{format_percent(lost)} more of the loss"
        )
    return f"is not measurably faster than {chosen.variant.name}"


def unserved(built: Iterable[Built]) -> tuple[str, str] | None:
    """Return the first layer (name, kind) that no variant computes in int8; None if there is none.

    Args:
        built: At least one variant in int8.
    """
    first, *others = (dict(one.in_float) for one in built)
    return next((one for one in first.items() if all(one[0] in left for left in others)), None)
