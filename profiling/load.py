"""The load of the machine by other processes during a measurement."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

MAX_OTHERS = 0.10
"""Maximum share of the cores that other processes may use during a measurement."""

MAX_STOLEN = 0.05
"""Maximum share of the core time that a hypervisor may give to other guests."""

SHORTEST_S = 0.2
"""Minimum length of a judged span, because the kernel counts busy time in units of 10 ms."""


@dataclass(frozen=True)
class Load:
    """The load by other work in a span of time.

    Attributes:
        span_s: Length of the span in seconds.
        others: Mean share of all cores that other processes used, 0 to 1.
        stolen: Mean share of all cores that the hypervisor took away, 0 to 1.
        clock_mhz: Clock of the device at the end of the span; None if it is unknown.
    """

    span_s: float
    others: float
    stolen: float
    clock_mhz: float | None = None

    @property
    def signs(self) -> tuple[str, ...]:
        """Signs of contention, each in a few words; empty without contention."""
        signs: list[str] = []
        if self.span_s < SHORTEST_S:
            return ()
        if self.others > MAX_OTHERS:
            signs.append(f"other processes kept {self.others:.0%} of the cores busy")
        if self.stolen > MAX_STOLEN:
            signs.append(f"the hypervisor took {self.stolen:.0%} of the core time")
        return tuple(signs)


class LoadWatch:
    """Measures the load while `running`; afterwards `load` has the result."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self.load: Load | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure the load during the body."""
        process = psutil.Process()
        start, before = time.monotonic(), _busy_s(process)
        yield
        span_s = time.monotonic() - start
        others_s, stolen_s = (b - a for a, b in zip(before, _busy_s(process), strict=True))
        # The times are those of the whole machine, so all of its cores count.
        core_s = max(span_s, 1e-9) * (psutil.cpu_count() or 1)
        others, stolen = (min(1.0, max(0.0, spent_s / core_s)) for spent_s in (others_s, stolen_s))
        self.load = Load(span_s, others, stolen, clock_mhz(self._device))


def _busy_s(process: psutil.Process) -> tuple[float, float]:
    """Return CPU seconds since boot that other processes used, and that were stolen."""
    times, own = psutil.cpu_times(), process.cpu_times()
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    stolen_s = getattr(times, "steal", 0.0)
    # The time of guests is already included in user time.
    guests_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    busy_s = sum(times) - idle_s - stolen_s - guests_s
    return busy_s - own.user - own.system, stolen_s


def clock_mhz(device: torch.device) -> float | None:
    """Return the current clock of the device's processor in MHz; None if it is unknown."""
    if device.type == "cuda":
        return _cuda_clock_mhz(device.index or 0)
    frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    return frequency.current if frequency and frequency.current else None


def _cuda_clock_mhz(index: int) -> float | None:
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    query = ["nvidia-smi", f"--id={index}", *asked]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    try:
        return float(answer.stdout)
    except ValueError:
        return None
