"""Which rounds of a measurement ran at the machine's quiet speed.

A machine has moments in which everything takes a third longer: another guest of the same host runs
on the sibling of our core, or the clock is lower. Neither CPU time nor load shows it, and it does
not slow all models alike. The reference and its twin, a copy of it, tell: they take their turns in
every round, and a round counts if both were about as fast as the reference has been of late. What
"about" allows is much more than a quiet machine varies: so rounds in which the reference was fast
by chance are not favoured.
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
"""How much slower than the quiet speed a round may be: more than a quiet machine varies within a
day, less than a busy sibling of the core costs (a third)."""

REMEMBERED_S = 24 * 3600.0
"""How long a speed counts as reachable: a machine that has become slower is not asked for more."""

_FAST = 0.2  # a quantile: the fastest sample of all is a stroke of luck
_ENOUGH = 8


def speed_of(times_ms: Sequence[float]) -> float:
    """Return the time in ms that a measurement reached again and again; infinite for a few."""
    return float(np.quantile(times_ms, _FAST)) if len(times_ms) >= _ENOUGH else float("inf")


def quiet_rounds(
    reference_ms: Sequence[float], twin_ms: Sequence[float], quiet_ms: float
) -> npt.NDArray[np.bool_]:
    """Mark the rounds in which neither took more than `quiet_ms`, give or take."""
    slower = np.maximum(reference_ms, twin_ms)
    marked: npt.NDArray[np.bool_] = slower <= quiet_ms * (1 + SLOWER_BY)
    return marked


class QuietSpeed:
    """The best speed of a reference within the last day, over all measurements on this machine.

    Args:
        path: A JSON file; None remembers within this object only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._noted: list[tuple[float, float]] = []

    @property
    def best_ms(self) -> float:
        """Time of a pass at the quiet speed; infinite where nothing is known."""
        return min((speed_ms for _, speed_ms in self._recent()), default=float("inf"))

    def note(self, times_ms: Sequence[float]) -> None:
        """Remember how fast a measurement was."""
        if (speed_ms := speed_of(times_ms)) < self.best_ms:
            self._noted = [*self._recent(), (time.time(), speed_ms)]
            self._write()

    def _recent(self) -> list[tuple[float, float]]:
        since = time.time() - REMEMBERED_S
        return [(at, speed_ms) for at, speed_ms in self._read() if at >= since]

    def _read(self) -> list[tuple[float, float]]:
        if self._path is None:
            return self._noted
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
            return [(float(at), float(speed_ms)) for at, speed_ms in entries]
        except (OSError, ValueError, TypeError):
            return self._noted  # nothing is lost: the machine tells its speed again

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, json.dumps(self._noted).encode())
        except OSError:
            return  # a cache that cannot be written only makes the next session learn it anew
