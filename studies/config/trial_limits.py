"""Limits of time and memory of one trial, and the memory that a process uses."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from studies.record.formats import format_bytes, format_duration

LOOK_S = 0.5
"""Seconds between two checks of the limits."""


@dataclass(frozen=True)
class TrialLimits:
    """The limits of one trial; None sets no limit.

    Attributes:
        timeout_s: Wall-clock seconds from the start of the evaluation in a worker, including time
            spent waiting for others' measurements. The clock starts again when a trial is resumed.
        memory_bytes: Private memory of the worker and its measuring process together.
    """

    timeout_s: float | None = None
    memory_bytes: int | None = None

    def __bool__(self) -> bool:
        return self.timeout_s is not None or self.memory_bytes is not None

    def excess(self, begun: float | None, pid: int | None) -> str | None:
        """Return which limit a trial has exceeded, as a sentence; None if none.

        Args:
            begun: Start of the evaluation, by `time.monotonic`; None if it has not started.
            pid: The process that evaluates the trial.
        """
        spent_s = 0.0 if begun is None else time.monotonic() - begun
        if self.timeout_s is not None and spent_s > self.timeout_s:
            limit = format_duration(self.timeout_s)
            return f"stopped: still running after its time limit of {limit} (trial_timeout_s)"
        if self.memory_bytes is None or (used := own_memory_bytes(pid)) <= self.memory_bytes:
            return None
        return (
            f"stopped: used {format_bytes(used)} of memory, above its memory limit of "
            f"{format_bytes(self.memory_bytes)} (trial_memory_bytes)"
        )


UNLIMITED = TrialLimits()
"""No limits."""


def own_memory_bytes(pid: int | None) -> int:
    """Return the private memory of a process and its children in bytes; 0 if it has ended.

    Pages of files (libraries, memory-mapped images) are not counted: they are shared, and the
    kernel can drop them. Address space is no measure: torch reserves far more than it uses.
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
