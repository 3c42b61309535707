"""The rounds of a measurement that ran at the machine's quiet speed.

Sometimes everything takes a third longer, because another guest of the same host uses the sibling
of a core (simultaneous multithreading), or because the clock is lower. Neither CPU time nor load
shows it, and not all models slow down by the same factor. The reference and its twin, a copy of it,
are timed in every round. A round counts if both were about as fast as the reference was within the
last day. The tolerance is much larger than the variation without contention, so that rounds in
which the reference was fast by chance are not preferred.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiling.files import write_whole

SLOWER_BY = 0.12
"""Maximum slowdown of a round at quiet speed: more than the variation of a machine within a day
without contention, less than the effect of a busy sibling of the core (a third)."""

REMEMBERED_S = 24 * 3600.0
"""Seconds for which a speed is remembered: a machine may become slower permanently."""

_FAST = 0.2  # quantile of the times: the fastest sample is fast by chance
_ENOUGH = 8


def speed_of(times_ms: Sequence[float]) -> float:
    """Return the time in ms that samples reached repeatedly; infinite for too few samples."""
    return float(np.quantile(times_ms, _FAST)) if len(times_ms) >= _ENOUGH else float("inf")


def quiet_rounds(
    reference_ms: Sequence[float], twin_ms: Sequence[float], quiet_ms: float
) -> npt.NDArray[np.bool_]:
    """Return whether each round ran at quiet speed, `(rounds,)`.

    Neither reference nor twin may exceed `quiet_ms` by more than `SLOWER_BY`.
    """
    slower = np.maximum(reference_ms, twin_ms)
    marked: npt.NDArray[np.bool_] = slower <= quiet_ms * (1 + SLOWER_BY)
    return marked


class QuietSpeed:
    """The best speed of a reference within the last day, over all measurements on this machine.

    Args:
        path: JSON file in which speeds are stored; None stores them in this object only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._noted: list[tuple[float, float]] = []

    @property
    def best_ms(self) -> float:
        """Latency of a pass at quiet speed in ms; infinite if nothing is known."""
        return min((speed_ms for _, speed_ms in self._recent()), default=float("inf"))

    def note(self, times_ms: Sequence[float]) -> None:
        """Store the speed of a measurement if it is the best one."""
        if (speed_ms := speed_of(times_ms)) < self.best_ms:
            self._noted = [*self._recent(), (time.time(), speed_ms)]
            self._write()

    def _recent(self) -> list[tuple[float, float]]:
        """Return time and speed of what was noted within the last day.

        A time in the future, which a corrected clock leaves behind, says nothing about the age.
        """
        now = time.time()
        return [(at, speed_ms) for at, speed_ms in self._read() if 0 <= now - at <= REMEMBERED_S]

    def _read(self) -> list[tuple[float, float]]:
        if self._path is None:
            return self._noted
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            noted = [(float(at), float(speed_ms)) for at, speed_ms in entries]
        except (OSError, ValueError, TypeError, OverflowError, RecursionError):
            return self._noted  # an unreadable file is replaced by the next measurement
        return [(at, speed_ms) for at, speed_ms in noted if 0 < speed_ms < float("inf")]

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._noted).encode())
        except OSError:
            return  # without the file, the next session measures the speed again
