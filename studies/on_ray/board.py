"""What Ray workers leave for the driver: how far they are, and why one of them ended itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from studies.config.trial_limits import LOOK_S, TrialLimits

BOARD_S = 10.0
"""Seconds in which the board must answer."""


class Board:
    """Where workers write how far they are, for the driver to read; a Ray actor."""

    def __init__(self) -> None:
        self._batches: dict[int, tuple[int, int]] = {}
        self._reasons: dict[int, str] = {}

    @classmethod
    def beside_the_driver(cls) -> Any:
        """Return a handle of a new one, on the driver's node: it must not go with a worker's."""
        node = ray.get_runtime_context().get_node_id()
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": strategy}
        return ray.remote(cls).options(**options).remote()

    def note(self, number: int, done: int, total: int) -> None:
        """Note a trial's batches, done and in all."""
        self._batches[number] = done, total

    def read(self) -> dict[int, tuple[int, int]]:
        """Return the batches that were noted since the last time."""
        read, self._batches = self._batches, {}
        return read

    def exceeded(self, number: int, reason: str) -> None:
        """Note which limit a trial exceeded: its process is about to end."""
        self._reasons[number] = reason

    def excess(self, number: int) -> str | None:
        """Return which limit a trial whose process ended had exceeded, if any."""
        return self._reasons.pop(number, None)


class Guard:
    """Ends this process when the trial that it evaluates takes more than it may.

    A thread looks; before it kills, it leaves the reason on the board, for the driver to find.

    Args:
        limits: What a trial may take; without any nobody looks.
        board: Where the reason is left.
    """

    def __init__(self, limits: TrialLimits, board: Any) -> None:
        self._limits, self._board = limits, board
        self._watched: int | None = None
        self._begun: float | None = None
        self._looking = threading.Lock()  # what is found out of bounds does not end meanwhile
        if limits:
            threading.Thread(target=self._look, name="nas-guard", daemon=True).start()

    def begin(self) -> None:
        """Start the clock of a trial: the process is ready for it."""
        self._begun = time.monotonic()

    @contextmanager
    def watching(self, number: int) -> Iterator[None]:
        """Look at a trial while it works: between its steps this process may wait for another."""
        self._watched = number
        try:
            yield
        finally:
            with self._looking:
                self._watched = None

    def forget(self) -> None:
        """Stop the clock, until the next trial begins."""
        self._begun = None

    def _look(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._looking:
                if self._watched is not None and (reason := self._excess()):
                    with suppress(RayError):  # without the board, the driver sees that this died
                        left = self._board.exceeded.remote(self._watched, reason)
                        ray.get(left, timeout=BOARD_S)
                    os.kill(os.getpid(), signal.SIGKILL)

    def _excess(self) -> str | None:
        return self._limits.excess(self._begun, os.getpid())
