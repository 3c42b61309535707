"""Objectives: valid selections, domination and hypervolume."""

import numpy as np
import pytest

from nas.objectives import (
    DEFAULT_OBJECTIVES,
    OBJECTIVES,
    dominates,
    hypervolume,
    nondominated,
    select_objectives,
)
from search_spaces.errors import UserError


def test_every_objective_is_known_by_its_name_and_by_what_it_costs_to_know() -> None:
    assert {name: (each.name, each.unit, each.cost) for name, each in OBJECTIVES.items()} == {
        "reconstruction_loss": ("reconstruction_loss", "", "training"),
        "total_loss": ("total_loss", "", "training"),
        "kl": ("kl", "nats", "training"),
        "psnr_db": ("psnr_db", "dB", "training"),
        "ms_ssim": ("ms_ssim", "", "training"),
        "ssim": ("ssim", "", "training"),
        "l1": ("l1", "", "training"),
        "params": ("params", "", "static"),
        "macs": ("macs", "", "static"),
        "flops": ("flops", "", "static"),
        "latency_ms": ("latency_ms", "ms", "device"),
        "predicted_latency_ms": ("predicted_latency_ms", "ms", "static"),
        "peak_memory_bytes": ("peak_memory_bytes", "B", "static"),
    }
    assert DEFAULT_OBJECTIVES == ("reconstruction_loss", "params", "macs", "latency_ms")


@pytest.mark.parametrize(
    "names",
    [
        ("params", "macs"),
        ("latency_ms", "params"),
        ("flops", "predicted_latency_ms"),
        DEFAULT_OBJECTIVES,
    ],
)
def test_objectives_keep_the_order_they_were_asked_for_in(names: tuple[str, ...]) -> None:
    assert tuple(objective.name for objective in select_objectives(names)) == names


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("params", "latencyms"), r"'latencyms' is not one of .*did you mean 'latency_ms'"),
        (("params", "macs", "params"), "params, macs, params: name each objective once"),
        (("params", "macs", "flops"), "flops is exactly twice macs"),
        (("latency_ms", "predicted_latency_ms"), "predicted_latency_ms replaces latency_ms"),
        (("params",), "objectives: params: a trade-off needs at least two of"),
        ((), "objectives: none: a trade-off needs at least two of"),
    ],
)
def test_a_set_that_is_no_trade_off_is_refused(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        select_objectives(names)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ((1, 1), (2, 2), True),
        ((1, 2), (2, 2), True),
        ((2, 1), (2, 2), True),
        ((2, 2), (2, 2), False),  # equal candidates do not dominate each other
        ((1, 3), (2, 2), False),
        ((3, 1), (2, 2), False),
        ((3, 3), (2, 2), False),
    ],
)
def test_domination_is_no_worse_in_all_and_better_in_one(
    ours: tuple[float, float], theirs: tuple[float, float], expected: bool
) -> None:
    a, b = (dict(zip("xy", values, strict=True)) for values in (ours, theirs))
    assert dominates(a, b, "xy") is expected
    assert dominates({**a, "z": 9}, {**b, "z": 0}, "xy") is expected  # not asked for


def test_the_front_keeps_equal_rows() -> None:
    points = np.array([[1.0, 3.0], [3.0, 1.0], [3.0, 1.0], [3.0, 3.0], [1.0, 4.0]])
    assert nondominated(points).tolist() == [True, True, True, False, False]
    assert nondominated(points[:1]).tolist() == [True]


def test_nothing_has_an_empty_front() -> None:
    empty = nondominated(np.zeros((0, 2)))
    assert empty.shape == (0,)
    assert empty.dtype == np.bool_


def test_hypervolume_is_the_share_of_the_box_that_is_dominated() -> None:
    nadir = np.array([2.0, 4.0])
    assert hypervolume(np.array([[1.0, 1.0]]), nadir) == pytest.approx(1 / 2 * 3 / 4)
    # The second rectangle adds what the first does not cover: (2 - 0.5) x (4 - 2) - 1 x 2 of 8.
    both = np.array([[1.0, 1.0], [0.5, 2.0]])
    assert hypervolume(both, nadir) == pytest.approx(3 / 8 + 1 / 8)


def test_points_beyond_the_nadir_earn_nothing() -> None:
    nadir = np.array([2.0, 4.0])
    outside = np.array([[0.5, 5.0], [3.0, 0.5], [2.0, 4.0]])
    assert hypervolume(outside, nadir) == 0.0
    assert hypervolume(np.zeros((0, 2)), nadir) == 0.0
    inside = np.array([[1.0, 1.0]])
    assert hypervolume(np.vstack([outside, inside]), nadir) == pytest.approx(3 / 8)
