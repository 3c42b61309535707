"""The peak rates of a machine, and which of them bounds a layer's time (roofline model).

The roofline model (Williams, Waterman & Patterson 2009) bounds the time by arithmetic and memory
traffic. Here a third bound is the cost of launching operations, and the rate of memory traffic
depends on the size, because caches are faster than memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from profiling.environment import Environment, convolution_precision, fingerprint
from profiling.progress import Progress
from profiling.timing import Timer, measuring, timer_for

Bound = Literal["compute", "memory", "launch"]

_GEMM_SIZE = {"cpu": 1024, "cuda": 4096, "mps": 2048}
_COPY_BYTES = tuple(2**power for power in (20, 22, 24, 26, 28))
_LAUNCHES = 1000
_BUDGET_S = 3.0
_MIN_ROUNDS, _ROUNDS = 5, 60


class Peaks(BaseModel):
    """The peak rates of a machine in float32.

    Attributes:
        gemm_gflop_s: Rate of a matrix product in GFLOP/s.
        copy_gb_s: Pairs (bytes moved by one copy, read plus written; GB/s) in ascending order of
            size. Small copies run in the cache.
        launch_us: Cost of an operation that does nothing, in microseconds.
        environment: Where the rates were measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gemm_gflop_s: float
    copy_gb_s: tuple[tuple[int, float], ...]
    launch_us: float
    environment: Environment

    @property
    def memory_gb_s(self) -> float:
        """Copy rate of the largest size, which does not fit in any cache."""
        return self.copy_gb_s[-1][1]

    def copy_rate_gb_s(self, moved_bytes: int) -> float:
        """Return the copy rate in GB/s for a size, interpolated linearly in its logarithm."""
        (low, rate), *rest = self.copy_gb_s
        if moved_bytes <= low:
            return rate
        for high, next_rate in rest:
            if moved_bytes <= high:
                weight = math.log(moved_bytes / low) / math.log(high / low)
                return rate + weight * (next_rate - rate)
            low, rate = high, next_rate
        return rate

    def limits_ms(self, flops: int, moved_bytes: int, launches: int) -> dict[Bound, float]:
        """Return resource -> minimum time that it allows, in milliseconds."""
        each = moved_bytes // max(1, launches)
        return {
            "compute": flops / self.gemm_gflop_s / 1e6,
            "memory": moved_bytes / self.copy_rate_gb_s(each) / 1e6,
            "launch": launches * self.launch_us / 1e3,
        }

    def bound(self, flops: int, moved_bytes: int, launches: int) -> tuple[Bound, float]:
        """Return the resource with the largest minimum time, and that time in ms."""
        limits = self.limits_ms(flops, moved_bytes, launches)
        return max(limits.items(), key=lambda item: item[1])


def measure_peaks(
    thread_count: int = 1,
    device: torch.device | str = "cpu",
    *,
    progress: Progress | None = None,
) -> Peaks:
    """Measure the peak rates of the machine, with half a gigabyte of memory in about three seconds.

    Every rate is measured in each round, and the best value is returned: a moment of contention
    then affects some rounds, but not a peak.
    """
    device = torch.device(device)
    size = _GEMM_SIZE[device.type]
    with measuring((), thread_count, device), _rounding_as_convolutions(device):
        copies = [_copy(moved_bytes, device) for moved_bytes in _COPY_BYTES]
        gemm, *copied, launch = _best_ms(
            [_gemm(size, device), *copies, _launch(device)], timer_for(device), progress
        )
        return Peaks(
            gemm_gflop_s=2 * size**3 / gemm / 1e6,
            copy_gb_s=tuple(
                (moved_bytes, _repeats(moved_bytes) * moved_bytes / best / 1e6)
                for moved_bytes, best in zip(_COPY_BYTES, copied, strict=True)
            ),
            launch_us=launch * 1e3 / _LAUNCHES,
            environment=fingerprint(device),
        )


def _gemm(size: int, device: torch.device) -> Callable[[], Any]:
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out)


def _copy(moved_bytes: int, device: torch.device) -> Callable[[], Any]:
    """Return a function that copies `moved_bytes / 2` bytes: each is read and written once."""
    source = torch.ones(moved_bytes // 8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(_repeats(moved_bytes)):
            target.copy_(source)

    return copy


def _repeats(moved_bytes: int) -> int:
    """Return the copies in one sample: more for small sizes, so that the launch is negligible."""
    return max(1, _COPY_BYTES[-1] // moved_bytes // 4)


def _launch(device: torch.device) -> Callable[[], Any]:
    """Return a function that launches operations on one element, with negligible work."""
    single = torch.ones(1, device=device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            torch.neg(single)

    return launch


@contextmanager
def _rounding_as_convolutions(device: torch.device) -> Iterator[None]:
    """Give CUDA's matrix products the precision of its convolutions, which the peak bounds."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if device.type == "cuda":
        matmul.fp32_precision = convolution_precision()
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _best_ms(
    runs: Sequence[Callable[[], Any]], timer: Timer, progress: Progress | None
) -> list[float]:
    """Return the shortest time of each function over the rounds within the time budget."""
    best = [float("inf")] * len(runs)
    end = time.perf_counter() + _BUDGET_S
    for done in range(1, _ROUNDS + 1):
        for i, run in enumerate(runs):
            run()  # loads its data into the cache again
            best[i] = min(best[i], timer(run).wall_ms)
        if progress:
            progress(done, _ROUNDS)
        if done >= _MIN_ROUNDS and time.perf_counter() >= end:
            break
    return best
