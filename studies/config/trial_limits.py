"""What one trial may take, of time and of memory, and what a process takes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from studies.record.formats import format_bytes, format_duration

LOOK_S = 0.5
"""Seconds between two looks at what trials take, where that is limited."""


@dataclass(frozen=True)
class TrialLimits:
    """What one trial may take.

    Attributes:
        timeout_s: Wall-clock seconds from when a worker takes it up to its end, waiting for others'
            measurements included; a trial that is resumed begins anew.
        memory_bytes: Memory of the worker and the process that measures for it.
    """

    timeout_s: float | None = None
    memory_bytes: int | None = None

    def __bool__(self) -> bool:
        return self.timeout_s is not None or self.memory_bytes is not None

    def excess(self, begun: float | None, pid: int | None) -> str | None:
        """Say which limit a trial has exceeded, if any.

        Args:
            begun: When it was taken up, by `time.monotonic`; None if it has not been.
            pid: The process that evaluates it.
        """
        spent_s = 0.0 if begun is None else time.monotonic() - begun
        if self.timeout_s is not None and spent_s > self.timeout_s:
            return f"not over after {format_duration(self.timeout_s)}, its limit (trial_timeout_s)"
        if self.memory_bytes is None or (used := own_memory_bytes(pid)) <= self.memory_bytes:
            return None
        return (
            f"took {format_bytes(used)} of memory, over its limit of "
            f"{format_bytes(self.memory_bytes)} (trial_memory_bytes)"
        )


UNLIMITED = TrialLimits()


def own_memory_bytes(pid: int | None) -> int:
    """Memory that a process and its children have for themselves; 0 if it is gone.

    What is read from files (libraries, memory-mapped images) is not counted: it can be dropped,
    and is shared. Address space is no measure, since torch reserves far more than it uses.
    """
    try:
        process = psutil.Process(pid)
        return sum(map(_own_bytes, [process, *process.children()]))
    except psutil.NoSuchProcess:
        return 0


def _own_bytes(process: psutil.Process) -> int:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))
