"""Robust statistics of timings: medians, their intervals, and ratios paired by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 1000


class Interval(NamedTuple):
    """A 95 % interval, in the unit of what it surrounds."""

    low: float
    high: float

    def half_width(self, centre: float) -> float:
        """Return half the interval's width as a fraction of `centre`."""
        return (self.high - self.low) / (2 * centre) if centre else float("inf")


def median_interval(samples: Sequence[float], seed: int = 0) -> Interval:
    """Return the median's 95 % bootstrap interval; infinite for fewer than two samples."""
    if len(samples) < 2:
        return Interval(float("-inf"), float("inf"))
    values = np.asarray(samples, dtype=float)
    draws = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), (0.025, 0.975))
    return Interval(float(low), float(high))


def relative_iqr(samples: Sequence[float]) -> float:
    """Return the interquartile range over the median: 0.1 means a spread of 10 %."""
    q1, q2, q3 = np.quantile(np.asarray(samples, dtype=float), (0.25, 0.5, 0.75))
    return float((q3 - q1) / q2) if q2 else float("inf")
