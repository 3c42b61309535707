"""Peaks and bounds on a made-up machine with round numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from profiling import roofline
from profiling.environment import fingerprint
from profiling.roofline import Peaks, measure_peaks
from profiling.timing import Sample, Timer

MB = 10**6
# 100 GFLOP/s, 64 GB/s up to 1 MB falling to 16 GB/s at 4 MB and above, 10 us per launch.
PEAKS = Peaks(
    gemm_gflop_s=100,
    copy_gb_s=((1 * MB, 64), (4 * MB, 16)),
    launch_us=10,
    environment=fingerprint(),
)


@pytest.mark.parametrize(
    ("moved_bytes", "rate"), [(1, 64), (1 * MB, 64), (2 * MB, 40), (4 * MB, 16), (9 * MB, 16)]
)
def test_copy_rate_follows_the_working_set(moved_bytes: int, rate: float) -> None:
    # 2 MB is half way between 1 and 4 MB in the logarithm.
    assert PEAKS.copy_rate_gb_s(moved_bytes) == pytest.approx(rate)


def test_limits_are_work_over_rate() -> None:
    limits = PEAKS.limits_ms(flops=200 * MB, moved_bytes=8 * MB, launches=1)
    assert limits == pytest.approx({"compute": 2.0, "memory": 0.5, "launch": 0.01})


def test_several_launches_each_have_their_share_of_the_working_set() -> None:
    limits = PEAKS.limits_ms(flops=0, moved_bytes=8 * MB, launches=8)
    assert limits["memory"] == pytest.approx(8 / 64)


@pytest.mark.parametrize(
    ("flops", "moved_bytes", "launches", "bound", "limit_ms"),
    [
        (200 * MB, 8 * MB, 1, "compute", 2.0),
        (1 * MB, 8 * MB, 1, "memory", 0.5),
        (100, 64, 5, "launch", 0.05),
    ],
)
def test_the_tightest_limit_is_the_bound(
    flops: int, moved_bytes: int, launches: int, bound: str, limit_ms: float
) -> None:
    name, least_ms = PEAKS.bound(flops, moved_bytes, launches)
    assert name == bound
    assert least_ms == pytest.approx(limit_ms)


def test_main_memory_is_the_largest_copy() -> None:
    assert PEAKS.memory_gb_s == 16


def scripted_timer(times_ms: list[float]) -> Callable[[torch.device], Timer]:
    """A timer that runs the call and reads its times from a list, over and over."""
    count = 0

    def timer(run: Callable[[], Any]) -> Sample:
        nonlocal count
        run()
        count += 1
        return Sample(times_ms[count % len(times_ms)], 0)

    return lambda device: timer


def test_peaks_come_from_the_best_of_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "timer_for", scripted_timer([5.0, 2.0, 9.0]))
    monkeypatch.setattr(roofline, "_BUDGET_S", 0)
    monkeypatch.setattr(roofline, "_GEMM_SIZE", {"cpu": 100})
    monkeypatch.setattr(roofline, "_COPY_BYTES", (8000, 32000))
    steps: list[tuple[int, int]] = []
    threads = torch.get_num_threads()
    peaks = measure_peaks(1, progress=lambda done, total: steps.append((done, total)))
    assert peaks.gemm_gflop_s == pytest.approx(2 * 100**3 / 2.0 / 1e6)
    assert peaks.copy_gb_s == ((8000, 8000 / 2.0 / 1e6), (32000, 32000 / 2.0 / 1e6))
    assert peaks.launch_us == pytest.approx(2.0)
    assert steps == [(done, 60) for done in range(1, 6)]
    assert peaks.environment.threads == 1
    assert torch.get_num_threads() == threads


def test_peaks_survive_json() -> None:
    assert Peaks.model_validate_json(PEAKS.model_dump_json()) == PEAKS
