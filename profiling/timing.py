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
    events of the device (None on a CPU).
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
    return cpu_timer if device.type == "cpu" else gpu_timer(device)


def cpu_timer(run: Callable[[], Any]) -> Sample:
    """Return the wall time and the CPU time of the calling thread for one call."""
    cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
    run()
    wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
    return Sample(wall_ns / 1e6, cpu_ns / 1e6)


def gpu_timer(device: torch.device) -> Timer:
    """Return a timer that synchronises before and after a call and uses the GPU's events too."""

    def timer(run: Callable[[], Any]) -> Sample:
        start, end = _event(device), _event(device)
        synchronise(device)
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        _record(start, device)
        run()
        _record(end, device)
        synchronise(device)
        wall_ns, cpu_ns = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
        return Sample(wall_ns / 1e6, cpu_ns / 1e6, float(start.elapsed_time(end)))

    return timer


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all its work; a CPU has none left."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def recorded_event(device: torch.device) -> Any:
    """Return an event in the queue of a CUDA device or of "mps", which has `elapsed_time`."""
    event = _event(device)
    _record(event, device)
    return event


def _event(device: torch.device) -> Any:
    kind: Any = torch.mps.Event if device.type == "mps" else torch.cuda.Event
    return kind(enable_timing=True)


def _record(event: Any, device: torch.device) -> None:
    if device.type == "mps":
        event.record()  # it has one queue
    else:
        event.record(torch.cuda.current_stream(device))
