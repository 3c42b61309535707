"""End a Ray worker whose trial exceeds a limit of time or memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from studies.config.trial_limits import LOOK_S, TrialLimits
from studies.on_ray.status import ANSWER_S


class Watchdog:
    """Kills this process when the trial that it evaluates exceeds a limit.

    A thread checks the limits. Before it kills the process, it reports the reason to the driver.

    Args:
        limits: Limits of one trial; without limits there is no thread.
        status: Handle of the `WorkerStatus` actor that receives the reason.
    """

    def __init__(self, limits: TrialLimits, status: Any) -> None:
        self._limits, self._status = limits, status
        self._watched: int | None = None
        self._begun: float | None = None
        self._checking = threading.Lock()  # a step must not end between the check and the kill
        if limits:
            threading.Thread(target=self._check, name="nas-watchdog", daemon=True).start()

    def begin(self) -> None:
        """Start the clock of a trial, once the process is ready for it."""
        self._begun = time.monotonic()

    @contextmanager
    def watching(self, number: int) -> Iterator[None]:
        """Check a trial's limits during a step; between steps the process waits for the driver."""
        self._watched = number
        try:
            yield
        finally:
            with self._checking:
                self._watched = None

    def forget(self) -> None:
        """Stop the clock until the next trial begins."""
        self._begun = None

    def _check(self) -> None:
        while True:
            time.sleep(LOOK_S)
            with self._checking:
                if self._watched is not None and (reason := self._excess()):
                    with suppress(RayError):  # without the actor, the driver sees a lost worker
                        recorded = self._status.exceeded.remote(self._watched, reason)
                        ray.get(recorded, timeout=ANSWER_S)
                    psutil.Process().kill()

    def _excess(self) -> str | None:
        return self._limits.excess(self._begun, os.getpid())
