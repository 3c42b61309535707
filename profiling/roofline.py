"""What this machine can do at most: arithmetic, copying, launching; and which binds a layer.

The roofline model (Williams, Waterman & Patterson, 2009), with a third bound for the cost of
starting an operation, and with copy speeds by size, since caches are faster than memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from profiling.environment import Environment, convolution_precision, fingerprint
from profiling.timing import measuring, timer_for

Bound = Literal["compute", "memory", "launch"]

_GEMM_SIZE = {"cpu": 1024, "cuda": 4096}
_COPY_BYTES = tuple(2**power for power in (20, 22, 24, 26, 28))
_LAUNCHES = 1000
_BUDGET_S = 0.4  # for each peak: the best of what fits, so that one disturbance does not lower it
_MIN_TRIES = 5


class Peaks(BaseModel):
    """The best rates seen on this machine, in float32.

    `copy_gb_s` holds pairs of (bytes moved by one copy, read plus written; GB/s), by rising size:
    the small ones run from cache. `launch_us` is the cost of an operation that does nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    gemm_gflop_s: float
    copy_gb_s: tuple[tuple[int, float], ...]
    launch_us: float
    environment: Environment

    @property
    def memory_gb_s(self) -> float:
        """Copy rate of the largest size: from main memory, past every cache."""
        return self.copy_gb_s[-1][1]

    def copy_rate_gb_s(self, moved_bytes: int) -> float:
        """Return the copy rate for a working set of this size, interpolated in its logarithm."""
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
        """Return the least time that each of the three resources allows, in milliseconds."""
        each = moved_bytes // max(1, launches)
        return {
            "compute": flops / self.gemm_gflop_s / 1e6,
            "memory": moved_bytes / self.copy_rate_gb_s(each) / 1e6,
            "launch": launches * self.launch_us / 1e3,
        }

    def bound(self, flops: int, moved_bytes: int, launches: int) -> tuple[Bound, float]:
        """Return the resource that allows least, and the least time it allows, in ms."""
        limits = self.limits_ms(flops, moved_bytes, launches)
        return max(limits.items(), key=lambda item: item[1])


def measure_peaks(
    thread_count: int = 1,
    device: torch.device | str = "cpu",
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Peaks:
    """Measure the machine's peaks in about three seconds, taking half a gigabyte of memory."""
    device = torch.device(device)
    steps = 2 + len(_COPY_BYTES)
    report = progress or (lambda done, total: None)
    with measuring((), thread_count, device):
        gemm = _gemm_gflop_s(device)
        report(1, steps)
        copies = []
        for moved_bytes in _COPY_BYTES:
            copies.append((moved_bytes, _copy_gb_s(moved_bytes, device)))
            report(1 + len(copies), steps)
        launch = _launch_us(device)
        report(steps, steps)
        return Peaks(
            gemm_gflop_s=gemm,
            copy_gb_s=tuple(copies),
            launch_us=launch,
            environment=fingerprint(device),
        )


def _gemm_gflop_s(device: torch.device) -> float:
    size = _GEMM_SIZE[device.type]
    left, right = torch.rand(size, size, device=device), torch.rand(size, size, device=device)
    out = torch.empty_like(left)
    with _rounding_as_convolutions(device):
        best_ms = _best_ms(lambda: torch.mm(left, right, out=out), device)
    return 2 * size**3 / best_ms / 1e6


@contextmanager
def _rounding_as_convolutions(device: torch.device) -> Iterator[None]:
    """Let CUDA's matrix products use TF32 if its convolutions do: the peak must hold for both."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    if device.type == "cuda":
        matmul.fp32_precision = convolution_precision()
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _copy_gb_s(moved_bytes: int, device: torch.device) -> float:
    """Copy half of `moved_bytes`: each byte is read once and written once."""
    source = torch.ones(moved_bytes // 8, device=device)
    target = torch.empty_like(source)
    repeats = max(1, _COPY_BYTES[-1] // moved_bytes // 4)

    def copy() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return repeats * moved_bytes / _best_ms(copy, device) / 1e6


def _launch_us(device: torch.device) -> float:
    """Time an operation on one element, whose work is nothing beside its start."""
    single = torch.ones(1, device=device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            torch.neg(single)

    return _best_ms(launch, device) * 1e3 / _LAUNCHES


def _best_ms(run: Callable[[], Any], device: torch.device) -> float:
    """Return the shortest of the times that fit the budget, after one untimed call."""
    timer = timer_for(device)
    run()
    times: list[float] = []
    end = time.perf_counter() + _BUDGET_S
    while len(times) < _MIN_TRIES or time.perf_counter() < end:
        times.append(timer(run).wall_ms)
    return min(times)
