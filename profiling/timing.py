"""Time one call by wall clock, CPU time and device events, and prepare the process for it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from profiling.environment import threads
from profiling.symbolic import mode_of


@dataclass(frozen=True)
class Sample:
    """One timed pass, in milliseconds.

    `cpu_ms` is the CPU time of the calling thread in the same span, `device_ms` the time between
    CUDA events (None on a CPU).
    """

    wall_ms: float
    cpu_ms: float
    device_ms: float | None = None


Timer = Callable[[Callable[[], Any]], Sample]


@contextmanager
def measuring(models: Iterable[Any], thread_count: int, device: torch.device) -> Iterator[None]:
    """Set evaluation mode and threads, disable gradients and garbage collection; then restore."""
    devices = [device] if device.type == "cuda" else []
    collecting = gc.isenabled()
    with ExitStack() as stack:
        stack.enter_context(threads(thread_count))
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode())
        for model in models:
            if isinstance(model, nn.Module):
                stack.enter_context(mode_of(model, training=False))
        gc.disable()
        if collecting:
            stack.callback(gc.enable)
        yield


def timer_for(device: torch.device) -> Timer:
    """Return the timer of calls on `device`."""
    return cuda_timer(device) if device.type == "cuda" else cpu_timer


def cpu_timer(run: Callable[[], Any]) -> Sample:
    """Return the wall time and the CPU time of the calling thread for one call."""
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    run()
    wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    return Sample(wall_ns / 1e6, cpu_ns / 1e6)


def cuda_timer(device: torch.device) -> Timer:
    """Return a timer that synchronises before and after a call and uses CUDA events too."""

    def timer(run: Callable[[], Any]) -> Sample:
        start, end = _event(), _event()
        torch.cuda.synchronize(device)
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        start.record(torch.cuda.current_stream(device))
        run()
        end.record(torch.cuda.current_stream(device))
        torch.cuda.synchronize(device)
        wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
        return Sample(wall_ns / 1e6, cpu_ns / 1e6, start.elapsed_time(end))

    return timer


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
