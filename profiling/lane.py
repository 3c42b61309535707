"""Exclusive measurements on a device, during which all trainings on this host pause.

A measurement during a training is not only noisier but biased, also on a GPU, because a busy CPU
launches its kernels late. Each device has two file locks. Before each batch, a training acquires a
shared lock on every device; a measurement acquires an exclusive lock on its own device. File locks
work between unrelated processes, and the operating system releases them when a process ends.
"""

from __future__ import annotations

import getpass
import os
import re
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from profiling.errors import ProfilingError
from profiling.locks import lock, try_lock, unlock

_PAUSE_S = 0.01
"""Pause after a measurement, in which a waiting process wakes up and acquires the lock."""


class _Locks(NamedTuple):
    """The two lock files of a device.

    Trainings share `room`, and a measurement holds it exclusively. A measurement acquires `door`
    first and then waits for `room`. Trainings need `door` for a moment before each batch, so new
    ones cannot acquire `room` meanwhile, and a measurement waits for one batch at most.
    """

    door: IO[bytes]
    room: IO[bytes]


class Lane:
    """The measurement lane of one device on this host.

    Args:
        device: As torch writes it ("cpu", "cuda:0"). Different devices can be measured at once.
        folder: Folder of the lock files, the same for every process on the host.

    Attributes:
        waited_s: Seconds spent waiting for locks so far.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"nas-lanes-{_user()}"
        self._locks: dict[str, _Locks] = {}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._own = self._open(re.sub(r"\W", "-", as_the_host_counts(device)))
        except OSError as error:
            raise ProfilingError(
                f"{self._folder}: cannot be written ({error.strerror}); set TMPDIR to a folder "
                "that can be written"
            ) from None
        weakref.finalize(self, _close, self._locks)
        self._training = False
        self.waited_s = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the lane exclusively in the body; a training of this process pauses."""
        training = self._training
        self.leave()
        with self._waiting():
            lock(self._own.door)
            lock(self._own.room)
        try:
            yield
        finally:
            unlock(self._own.room)
            unlock(self._own.door)
            # File locks are not fair: without a pause this process could acquire it again first.
            time.sleep(_PAUSE_S)
            if training:
                self.enter()

    def enter(self) -> None:
        """Begin or continue training; wait while a process measures or waits to measure."""
        known = len(self._locks)
        lanes = self._all()
        if self._training and len(lanes) == known and all(_open_door(lane) for lane in lanes):
            return
        self.leave()
        with self._waiting():
            for lane in lanes:
                lock(lane.door, shared=True)
                lock(lane.room, shared=True)
                unlock(lane.door)
        self._training = True

    def leave(self) -> None:
        """Pause training, so that measurements do not wait for this process."""
        for lane in self._locks.values():
            unlock(lane.room)
        self._training = False

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train in the body, which must call `enter` after each batch."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.waited_s += time.monotonic() - start

    def _open(self, name: str) -> _Locks:
        if name not in self._locks:
            self._locks[name] = _Locks(
                *((self._folder / f"{name}.{part}").open("ab") for part in _Locks._fields)
            )
        return self._locks[name]

    def _all(self) -> list[_Locks]:
        """Return the locks of every device that was measured on this host."""
        for entry in os.scandir(self._folder):
            name, _, part = entry.name.rpartition(".")
            if part == "door":
                self._open(name)
        return [self._locks[name] for name in sorted(self._locks)]


def as_the_host_counts(device: str) -> str:
    """Return the device with its number on the host, which is the same in every process.

    A process with CUDA_VISIBLE_DEVICES numbers the visible GPUs from 0.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    visible = [name.strip() for name in listed if name.strip()]
    number = int(index or 0)
    return f"cuda:{visible[number] if number < len(visible) else number}"


def _open_door(lane: _Locks) -> bool:
    if not try_lock(lane.door, shared=True):
        return False
    unlock(lane.door)
    return True


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()  # not on Windows


def _close(locks: dict[str, _Locks]) -> None:
    for lane in locks.values():
        lane.door.close()
        lane.room.close()
