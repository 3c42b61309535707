"""Intervals of medians, compared with values worked out by hand and with their sources."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from profiling.intervals import (
    Interval,
    _draws,
    _tail,
    block_length,
    median_interval,
    relative_iqr,
)


def test_half_the_width_is_relative_to_the_centre() -> None:
    assert Interval(1.0, 3.0).half_width(4.0) == 0.25
    assert Interval(1.0, 3.0).half_width(0.0) == math.inf


@pytest.mark.parametrize(
    ("interval", "margin", "excluded"),
    [
        (Interval(1.0, 2.0), 0.0, False),  # an end on the value is not away from it
        (Interval(0.5, 1.0), 0.0, False),
        (Interval(1.1, 2.0), 0.0, True),
        (Interval(0.5, 0.9), 0.0, True),
        (Interval(1.25, 2.0), 0.25, False),
        (Interval(0.25, 0.75), 0.25, False),
        (Interval(1.26, 2.0), 0.25, True),
        (Interval(0.25, 0.74), 0.25, True),
        (Interval(0.8, 1.2), 0.0, False),
    ],
)
def test_a_value_is_excluded_from_beyond_the_margin_on_either_side(
    interval: Interval, margin: float, excluded: bool
) -> None:
    assert interval.excludes(1.0, margin) is excluded
    if not margin:
        assert interval.excludes(1.0) is excluded


def test_one_sample_tells_nothing_and_two_tell_their_range() -> None:
    assert median_interval([]) == median_interval([3.0]) == (-math.inf, math.inf)
    assert median_interval([3.0, 5.0]) == pytest.approx((3.0, 5.0))


def test_the_interval_of_a_small_sample_ends_at_the_expanded_quantiles() -> None:
    # In 1.0 % of the resamples of seven the median is the lowest sample (it is drawn four times or
    # more). The expanded interval begins at the quantile 0.4 %, a plain one would at 2.5 %.
    lowest = sum(math.comb(7, k) * 6 ** (7 - k) for k in range(4, 8)) / 7**7
    assert _tail(7) < lowest < 0.025
    assert median_interval([3.0, 1.0, 6.0, 4.0, 7.0, 2.0, 5.0]) == (1.0, 7.0)


def test_the_interval_lies_around_the_median_in_the_samples_unit() -> None:
    samples = np.random.default_rng(0).normal(100, 1, 400)
    low, high = median_interval(samples.tolist())
    assert low < np.median(samples) < high
    # The median of n normal samples has a standard error of 1.2533 / sqrt(n).
    assert high - low == pytest.approx(2 * 1.96 * 1.2533 / math.sqrt(400), rel=0.25)


def test_the_same_samples_have_the_same_interval_unless_the_seed_differs() -> None:
    samples = np.random.default_rng(3).lognormal(size=31).tolist()
    assert median_interval(samples) == median_interval(samples, seed=0)
    assert median_interval(samples) != median_interval(samples, seed=1)


# t(n - 1) at 97.5 % from a table, times sqrt(n / (n - 1)), through the normal distribution.
@pytest.mark.parametrize(
    ("count", "student", "tail"),
    [(2, 12.706, 0.0), (5, 2.7764, 0.000955), (10, 2.2622, 0.00855), (31, 2.0423, 0.01898)],
)
def test_small_samples_get_the_quantiles_of_the_expanded_percentile_interval(
    count: int, student: float, tail: float
) -> None:
    expanded = math.sqrt(count / (count - 1)) * student
    assert _tail(count) == pytest.approx(math.erfc(expanded / math.sqrt(2)) / 2, rel=1e-3, abs=1e-9)
    assert _tail(count) == pytest.approx(tail, rel=2e-3, abs=1e-9)


def test_the_tail_of_a_large_sample_is_two_and_a_half_percent() -> None:
    assert _tail(100_000) == pytest.approx(0.025, rel=1e-3)


@pytest.mark.parametrize(
    ("count", "length"), [(0, 1), (7, 1), (8, 2), (9, 3), (27, 3), (28, 4), (64, 4), (65, 5)]
)
def test_a_trend_is_drawn_in_blocks_of_the_cube_root_of_its_length(count: int, length: int) -> None:
    assert block_length(range(count)) == length


def test_what_alternates_or_hardly_hangs_together_is_drawn_one_by_one() -> None:
    assert block_length([1.0, 2.0] * 20) == 1
    assert block_length(np.random.default_rng(0).normal(size=64)) == 1


def test_one_stray_sample_does_not_hide_a_trend() -> None:
    samples = list(range(27))
    samples[13] = 10**9
    assert block_length(samples) == 3


@pytest.mark.parametrize(("correlation", "length"), [(0.26, 1), (0.30, 3)])
def test_blocks_begin_at_the_95_percent_bound_of_independent_samples(
    correlation: float, length: int
) -> None:
    # Of 27 independent samples it is -1/27 in the mean, below 1.645 / sqrt(27) - 1/27 = 0.2796.
    assert block_length(ranks_of_correlation(27, correlation)) == length


def ranks_of_correlation(count: int, wanted: float) -> npt.NDArray[np.float64]:
    """Return a permutation whose neighbours correlate by about `wanted`."""
    rng = np.random.default_rng(0)
    while True:
        ranks = rng.permutation(count).astype(np.float64) - (count - 1) / 2
        if abs(ranks[:-1] @ ranks[1:] / (ranks @ ranks) - wanted) < 0.01:
            return ranks


def test_blocks_of_neighbours_are_drawn_around_the_end() -> None:
    drawn = _draws(10, 4, np.random.default_rng(0))
    assert drawn.shape == (1000, 10)
    for place in (0, 1, 2, 4, 5, 6, 8):  # within the blocks that begin at 0, 4 and 8
        assert ((drawn[:, place] + 1) % 10 == drawn[:, place + 1]).all()
    assert np.bincount(drawn[:, 0], minlength=10).min() > 50  # every start is drawn
    assert np.bincount(drawn[:, 3]).size == 10
    assert not ((drawn[:, 3] + 1) % 10 == drawn[:, 4]).all()
    starts = np.random.default_rng(0).integers(10, size=(1000, 3))  # no more than are needed
    assert (drawn[:, [0, 4, 8]] == starts).all()


def test_single_draws_do_not_depend_on_each_other() -> None:
    drawn = _draws(50, 1, np.random.default_rng(0))
    assert drawn.shape == (1000, 50)
    assert (drawn.min(), drawn.max()) == (0, 49)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.1


def test_the_spread_is_relative_to_the_median() -> None:
    assert relative_iqr([2.0, 4.0, 6.0, 8.0, 10.0]) == pytest.approx(4 / 6)
    assert relative_iqr([7.0, 7.0, 7.0]) == 0.0
    assert relative_iqr([-1.0, 0.0, 1.0]) == math.inf
