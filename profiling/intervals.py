"""Robust statistics of timings: confidence intervals of medians, spread and autocorrelation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_RESAMPLES = 1000


class Interval(NamedTuple):
    """A 95 % confidence interval, in the unit of the estimate."""

    low: float
    high: float

    def half_width(self, centre: float) -> float:
        """Return half the interval's width as a fraction of `centre`."""
        return (self.high - self.low) / (2 * centre) if centre else float("inf")

    def excludes(self, value: float, margin: float = 0.0) -> bool:
        """Whether the whole interval is more than `margin` above or below `value`."""
        return self.low > value + margin or self.high < value - margin


def median_interval(samples: Sequence[float], seed: int = 0) -> Interval:
    """Return the 95 % bootstrap interval of the median; infinite for fewer than two samples.

    Samples must be given in the order of measurement. If they are autocorrelated, blocks are drawn
    (circular block bootstrap, Politis and Romano 1992), because single draws would give an interval
    that is too narrow. The quantiles are those of the expanded percentile interval (Hesterberg
    2015), which are wider for small samples.
    """
    if len(samples) < 2:
        return Interval(float("-inf"), float("inf"))
    values = np.asarray(samples, dtype=float)
    draws = _draws(len(values), block_length(values), np.random.default_rng(seed))
    tail = _tail(len(values))
    low, high = np.quantile(np.median(values[draws], axis=1), (tail, 1 - tail))
    return Interval(float(low), float(high))


def block_length(samples: Sequence[float] | npt.NDArray[np.float64]) -> int:
    """Return the block length of the bootstrap: 1 unless samples are autocorrelated.

    The lag-1 autocorrelation of the ranks is tested, so that one outlier does not hide the
    correlation of the others. The length is the cube root of the number of samples, the usual order
    of magnitude.
    """
    count = len(samples)
    if count < 8:
        return 1
    ranks = np.argsort(np.argsort(samples, kind="stable"), kind="stable") - (count - 1) / 2
    correlation = float(ranks[:-1] @ ranks[1:] / (ranks @ ranks))
    # For independent samples its mean is about -1 / n and its deviation 1 / sqrt(n); this is a
    # one-sided test at 5 %.
    significant = correlation > 1.645 / math.sqrt(count) - 1 / count
    return math.ceil(count ** (1 / 3)) if significant else 1


def relative_iqr(samples: Sequence[float]) -> float:
    """Return the interquartile range over the median: 0.1 means a spread of 10 %."""
    q1, q2, q3 = np.quantile(np.asarray(samples, dtype=float), (0.25, 0.5, 0.75))
    return float((q3 - q1) / q2) if q2 else float("inf")


@cache
def _tail(count: int) -> float:
    """Return the level of the lower quantile of the expanded percentile interval.

    For n samples it is Phi(-sqrt(n / (n - 1)) t_{n-1, 0.975}) (Hesterberg 2015), where Phi is the
    standard normal distribution function and t a quantile of Student's distribution. A plain
    percentile interval is too narrow for two reasons: its variance has the denominator n instead of
    n - 1, and it uses the normal quantile instead of Student's t.
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-math.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975)))


def _draws(count: int, block: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the indices of resamples drawn in blocks, `(_RESAMPLES, count)`."""
    starts = rng.integers(count, size=(_RESAMPLES, math.ceil(count / block)))
    indices = (starts[:, :, None] + np.arange(block)) % count
    return indices.reshape(_RESAMPLES, -1)[:, :count]
