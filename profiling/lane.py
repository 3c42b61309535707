"""One measurement at a time per device, with all training on this host paused meanwhile.

A measurement beside a running training is not only noisier but biased, also on a GPU, whose work a
busy CPU hands out late. So whoever trains enters every lane's room before each batch, together with
others, and whoever measures has the room of its device alone. Two file locks per device make this
work between unrelated processes; the kernel frees them with their holder, however it ends.
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

_COURTESY_S = 0.01
"""Pause after a measurement, which takes seconds: enough to be woken on a busy machine."""


class _Locks(NamedTuple):
    """Open files. `room` is shared by trainings and held alone by a measurement, as is `door`.

    A measurement holds the door from the moment it wants the room, and trainings pass the door
    before each batch: they cannot keep the room by coming and going, and a measurement waits for
    one batch at most.
    """

    door: IO[bytes]
    room: IO[bytes]


class Lane:
    """The measurement lane of one device on this host.

    Args:
        device: As torch writes it ("cpu", "cuda:0"): different devices can be measured at once.
        folder: Where the lock files live: the same for every process on the host.
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
                "that can"
            ) from None
        weakref.finalize(self, _close, self._locks)
        self._training = False
        self.waited_s = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Have the device alone; a training of this process leaves for that time."""
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
            # The kernel wakes who waits, but whoever asks first has the lock: let them be that.
            time.sleep(_COURTESY_S)
            if training:
                self.enter()

    def enter(self) -> None:
        """Begin or go on training: wait while somebody measures or wants to."""
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
        """Stop training: measurements need not wait for this process."""
        for lane in self._locks.values():
            unlock(lane.room)
        self._training = False

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train inside; call `enter` at each batch boundary."""
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
        """Return the lanes of every device that has been measured on this host."""
        for entry in os.scandir(self._folder):
            name, _, part = entry.name.rpartition(".")
            if part == "door":
                self._open(name)
        return [self._locks[name] for name in sorted(self._locks)]


def as_the_host_counts(device: str) -> str:
    """Return a device by the number that every process on the host knows it by.

    A process that sees only some GPUs counts those from 0.
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
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()  # Windows has no number


def _close(locks: dict[str, _Locks]) -> None:
    for lane in locks.values():
        lane.door.close()
        lane.room.close()
