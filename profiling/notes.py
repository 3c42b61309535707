"""Time the modules of a model: a copy notes when each module starts and stops."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from typing import Any

import torch
from torch import nn

from profiling.latency import Latency, LatencyConfig, measure_latency
from profiling.timing import recorded_event


@dataclass(frozen=True)
class Pass:
    """One pass: total time, and time in each watched module without watched modules inside."""

    total_ms: float
    own_ms: tuple[float, ...]


def middle_half(passes: Sequence[Pass]) -> Sequence[Pass]:
    """Return the half of the passes whose total times are nearest to the median."""
    ordered, quarter = sorted(passes, key=lambda taken: taken.total_ms), len(passes) // 4
    return ordered[quarter : len(ordered) - quarter]


def outside_ms(passes: Sequence[Pass]) -> float:
    """Return the mean time between watched modules, over the middle half of the passes."""
    return mean(taken.total_ms - sum(taken.own_ms) for taken in middle_half(passes))


class Notes:
    """A copy of a model that notes when each watched module runs; it shares the tensors.

    Args:
        model: The model to copy.
        paths: Paths of the modules to watch.
        device: Device of the model, whose clock is used.
        cpu_time: Use the CPU time of the calling thread instead, which must do all the work. On
            busy cores the wall time of long operations contains more waiting than that of short
            ones.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Sequence[str],
        device: torch.device,
        *,
        cpu_time: bool = False,
    ) -> None:
        tensors = (*model.parameters(), *model.buffers())
        self._copy = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
        self._paths = paths
        self._stamp, self._elapsed_ms = _clock(device, cpu_time=cpu_time)
        self._events: list[Any] = []
        self._taken: list[list[Any]] = []
        for index, path in enumerate(paths):
            self._watch(self._copy.get_submodule(path), index)

    def __call__(self, *args: Any) -> Any:
        """Run one pass and take notes, which `passes` evaluates later."""
        self._events.clear()
        start = self._stamp()
        output = self._copy(*args)
        self._taken.append([start, *self._events, self._stamp()])
        return output

    @property
    def calls(self) -> int:
        """Number of watched calls in a pass."""
        return (len(self._taken[-1]) - 2) // 4

    def passes(self, skip: int, untimed: int = 0, timed: int = 1) -> list[Pass]:
        """Return the times of all passes except the first `skip` and those that are not timed.

        Args:
            skip: Number of passes of the warm-up.
            untimed: Number of passes before each sample that are not timed.
            timed: Number of passes of a sample.
        """
        later, period = enumerate(self._taken[skip:]), untimed + timed
        return [self._worked_out(taken) for i, taken in later if i % period >= untimed]

    def passes_of(self, latency: Latency) -> list[Pass]:
        """Return the times of the passes that `measure_latency` timed, of the noted model."""
        subject = latency.subject
        return self.passes(len(latency.warmup_ms), subject.primings, subject.repeats)

    def _watch(self, module: nn.Module, index: int) -> None:
        events, stamp = self._events, self._stamp

        def enter(module: nn.Module, args: Any) -> None:
            events.append(index)
            events.append(stamp())

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            now = stamp()
            events.append(None)
            events.append(now)

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)

    def _worked_out(self, taken: Sequence[Any]) -> Pass:
        """Return the time of each module from start to stop, without modules inside it."""
        own = [0.0] * len(self._paths)
        running: list[tuple[int, Any]] = []
        for index, stamp in zip(taken[1:-1:2], taken[2:-1:2], strict=True):
            if index is not None:
                running.append((index, stamp))
                continue
            inner, start = running.pop()
            spent = self._elapsed_ms(start, stamp)
            own[inner] += spent
            if running:
                own[running[-1][0]] -= spent
        return Pass(self._elapsed_ms(taken[0], taken[-1]), tuple(own))


def _clock(
    device: torch.device, *, cpu_time: bool
) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """Return two functions: a time stamp in the device's queue, and the ms between two stamps."""
    if device.type == "cpu":
        clock = time.thread_time_ns if cpu_time else time.perf_counter_ns
        return clock, lambda start, stop: (stop - start) / 1e6
    return partial(recorded_event, device), lambda start, stop: float(start.elapsed_time(stop))


def note_cost_ms(config: LatencyConfig, device: torch.device) -> float:
    """Return the time of taking notes per call, measured with modules that do nothing."""
    count = 50
    chain = nn.Sequential(*(nn.Identity() for _ in range(count)))
    notes = Notes(chain, [str(i) for i in range(count)], device)
    quick = config.model_copy(update={"batch": 1, "max_s": 0.5})
    timings = measure_latency({"notes": notes}, torch.zeros(1, 1), quick, device)
    timed = timings["notes"]
    passes = notes.passes_of(timed)
    return median(taken.total_ms - sum(taken.own_ms) for taken in passes) / count
