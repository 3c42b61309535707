"""The drivers of a study, and which of them are alive.

Optuna's heartbeat covers only `study.optimize`, so this module implements leases on trials. Each
trial names its owner, one driver. Each driver increments a counter in the storage every `BEAT_S`
seconds, its heartbeat. Each driver reads the counters of the others at its own beats; a driver
whose counter was equal in `LOOKS` reads in a row counts as gone. No clocks are compared, so clock
skew has no effect. Neither has an unavailable storage or a suspended host: meanwhile there are no
reads. A driver of this host whose process has ended is gone at once, and so is one that has
recorded its own end.

A driver whose process was stopped for minutes may count as gone by mistake. It then finds that its
trials have another owner, and drops them, so that no trial counts twice.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from optuna.storages import BaseStorage
from pydantic import TypeAdapter, ValidationError

BEAT_S = 10.0
"""Seconds between two heartbeats of a driver."""

LOOKS = 6
"""A driver is gone after this many reads in a row with an equal counter."""

_PREFIX = "driver:"

_SINCE_1970 = 1e9
"""Starts above this are in seconds since 1970: no machine has been running for so long."""


@dataclass(frozen=True)
class Driver:
    """A driver's entry in the storage.

    Attributes:
        host: Name of its host, for people.
        machine: Identifier of boot and PID namespace, within which process numbers are comparable.
        pid: Number of its process.
        started: Start of the process, since process numbers are reused, in seconds since the boot,
            which do not change when the clock is set. In seconds since 1970 where that is not
            known, and in entries of earlier versions.
        beat: Number of heartbeats so far.
        ended: Whether it has recorded its end.
    """

    host: str
    machine: str
    pid: int
    started: float
    beat: int = 0
    ended: bool = False

    @classmethod
    def here(cls) -> Driver:
        """Return an entry for this process."""
        return cls(socket.gethostname(), _machine(), os.getpid(), _started(psutil.Process()))

    @property
    def has_ended(self) -> bool:
        """Whether it is certain that the driver no longer runs."""
        return self.ended or (self.machine == _machine() and not self._runs())

    def _runs(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            by_clock = self.started > _SINCE_1970
            started = process.create_time() if by_clock else _started(process)
            return abs(started - self.started) < 2
        except psutil.Error:
            return False


_ENTRY = TypeAdapter(Driver)


class Drivers:
    """Registers this driver in its study, and sends heartbeats until `leave`.

    Args:
        storage: The study's storage.
        study_id: The study's number in the storage.

    Attributes:
        name: Unique name of this driver.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self._me = Driver.here()
        self.name = f"{self._me.host}-{self._me.pid}-{uuid.uuid4().hex[:6]}"
        self._seen: dict[str, tuple[int, int]] = {}  # counter, reads with an equal counter
        self._over = threading.Event()
        self._write(self._me)
        self._heart = threading.Thread(target=self._beat, name="nas-heart", daemon=True)
        self._heart.start()

    def alive(self) -> set[str]:
        """Return the names of the drivers that have not ended and whose counters still change."""
        still = {name for name, (_, same) in self._seen.items() if same >= LOOKS}
        there = {name for name, driver in self._all().items() if not driver.has_ended}
        return there - still | {self.name}

    def leave(self) -> None:
        """Stop the heartbeat and record the end of this driver."""
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
        return _entries(self._storage, self._study_id)

    def _write(self, driver: Driver) -> None:
        self._storage.set_study_system_attr(self._study_id, _PREFIX + self.name, asdict(driver))


def running_drivers(storage: BaseStorage, study_id: int) -> list[Driver]:
    """Return the drivers that run a study; this process does not become one of them.

    A driver of this host runs if its process does. One of another host runs if its counter changes
    within one and a half heartbeats, for which this function waits.
    """
    before = {n: one for n, one in _entries(storage, study_id).items() if not one.has_ended}
    here = [one for one in before.values() if one.machine == _machine()]
    if here or not before:
        return here
    time.sleep(1.5 * BEAT_S)
    now = _entries(storage, study_id)
    return [one for n, one in before.items() if n in now and now[n].beat != one.beat]


def _entries(storage: BaseStorage, study_id: int) -> dict[str, Driver]:
    attributes: Mapping[str, Any] = storage.get_study_system_attrs(study_id)
    stored = {key: value for key, value in attributes.items() if key.startswith(_PREFIX)}
    drivers = {key.removeprefix(_PREFIX): _driver(value) for key, value in stored.items()}
    return {name: driver for name, driver in drivers.items() if driver is not None}


def _driver(stored: object) -> Driver | None:
    """Return a stored entry; None for one that is damaged, whose driver counts as gone."""
    try:
        return _ENTRY.validate_python(stored)
    except ValidationError:
        return None


def _started(process: psutil.Process) -> float:
    """Return the start of a process in seconds since the boot; since 1970 where that is not known.

    `psutil.Process.create_time` adds the time of the boot, which Linux derives from the clock. If
    the clock was set meanwhile, a running process would seem to be another one.
    """
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
        return int(fields.split()[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):  # not Linux, or the process has ended
        return process.create_time()


def _machine() -> str:
    """Return an identifier that is equal for all processes with comparable process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return f"{socket.gethostname()}-{psutil.boot_time():.0f}"
