"""The drivers of a study: who they are, and which of them are gone.

Optuna's heartbeat covers `study.optimize` alone, so trials that were asked for get leases here. A
trial names its owner, one driver; a driver counts up a number in the storage every `BEAT_S`. No two
clocks are compared: each driver looks at the others' numbers at its own beats, and one whose number
stayed the same for `LOOKS` looks in a row is gone. Skewed clocks do not matter, nor does a storage
that was away, nor a host that slept: in that time nobody looks. A driver of this host whose process
has ended is gone at once, and so is one that has recorded its own end.

A driver may be taken for gone although it is not, because its process was stopped for minutes. It
finds that its trials have another owner, and drops them: nothing is counted twice.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.storages import BaseStorage

BEAT_S = 10.0
"""Seconds between two beats of a driver."""

LOOKS = 6
"""Looks, a beat apart, at which a living driver must have moved."""

_PREFIX = "driver:"


@dataclass(frozen=True)
class Driver:
    """A driver's entry in the storage.

    Attributes:
        host: Name of its host, for people.
        machine: What processes must share for their numbers to mean the same: boot and namespace.
        pid: Its process.
        started: When that began, in seconds since 1970: process numbers are used again.
        beat: How often it has moved.
        ended: It has recorded its end.
    """

    host: str
    machine: str
    pid: int
    started: float
    beat: int = 0
    ended: bool = False

    @classmethod
    def here(cls) -> Driver:
        """Return this process."""
        started = psutil.Process().create_time()
        return cls(socket.gethostname(), _machine(), os.getpid(), started)

    @property
    def has_ended(self) -> bool:
        """Whether it is certain that it does not run any more."""
        return self.ended or (self.machine == _machine() and not self._runs())

    def _runs(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) < 2
        except psutil.Error:
            return False


class Drivers:
    """This driver among the others of its study; beats until `leave`.

    Args:
        storage: Where the study is.
        study_id: The study's number in it.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self._me = Driver.here()
        self.name = f"{self._me.host}-{self._me.pid}-{uuid.uuid4().hex[:6]}"
        self._seen: dict[str, tuple[int, int]] = {}  # beat, looks at which it was the same
        self._over = threading.Event()
        self._write(self._me)
        self._heart = threading.Thread(target=self._beat, name="nas-heart", daemon=True)
        self._heart.start()

    def alive(self) -> set[str]:
        """Return the names of the drivers that have not ended and whose numbers still change."""
        still = {name for name, (_, same) in self._seen.items() if same >= LOOKS}
        there = {name for name, driver in self._all().items() if not driver.has_ended}
        return there - still | {self.name}

    def leave(self) -> None:
        """Stop beating and record the end, if the storage can be reached."""
        self._over.set()
        self._heart.join()
        self._write(Driver(**{**asdict(self._me), "ended": True}))

    def _beat(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_S):
            beat += 1
            try:
                self._write(Driver(**{**asdict(self._me), "beat": beat}))
                self._look(self._all())
            except Exception:
                continue

    def _look(self, drivers: Mapping[str, Driver]) -> None:
        for name, driver in drivers.items():
            beat, same = self._seen.get(name, (-1, 0))
            self._seen[name] = driver.beat, same + 1 if driver.beat == beat else 0

    def _all(self) -> dict[str, Driver]:
        attributes: Mapping[str, Any] = self._storage.get_study_system_attrs(self._study_id)
        return {
            key.removeprefix(_PREFIX): Driver(**stored)
            for key, stored in attributes.items()
            if key.startswith(_PREFIX)
        }

    def _write(self, driver: Driver) -> None:
        self._storage.set_study_system_attr(self._study_id, _PREFIX + self.name, asdict(driver))


def _machine() -> str:
    """Return what is the same for all processes that see each other's numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"
