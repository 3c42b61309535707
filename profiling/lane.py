"""Exclusive measurements on a device, during which all trainings on this host pause.

A measurement during a training is not only noisier but biased, also on a GPU, because a busy CPU
launches its kernels late. Each device has two file locks. Before each batch, a training acquires a
shared lock on every device; a measurement acquires an exclusive lock on its own device. File locks
work between unrelated processes, and the operating system releases them when a process ends.

All users share the folder of the lock files, `/tmp/nas-lanes`. What has a `/tmp` of its own, such
as a container, has lanes of its own; `NAS_LANE_DIR` names another folder, which containers can
share. On Windows each user has a folder.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from profiling.errors import ProfilingError
from profiling.locks import lock, try_lock, unlock
from profiling.shared_files import make_shared_folder, open_shared_file

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

    @property
    def inodes(self) -> tuple[int, ...]:
        """The number of each file in its file system."""
        return tuple(os.fstat(file.fileno()).st_ino for file in self)


class Lane:
    """The measurement lane of one device on this host.

    Args:
        device: As torch writes it ("cpu", "cuda:0"). Different devices can be measured at once.
        folder: Folder of the lock files, the same for every process on the host; by default
            `default_folder()`.

    Attributes:
        waited_s: Seconds spent waiting for locks so far.

    Raises:
        ProfilingError: the folder or a file in it cannot be used.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        self._folder = folder or default_folder()
        self._name = re.sub(r"\W", "-", as_the_host_counts(device))
        self._locks: dict[str, _Locks] = {}
        self._all()
        weakref.finalize(self, _close, self._locks)
        self._training = False
        self.waited_s = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the lane exclusively in the body; a training of this process pauses."""
        training = self._training
        self.leave()
        self._all()
        own = self._locks[self._name]
        with self._waiting():
            lock(own.door)
            lock(own.room)
        try:
            yield
        finally:
            unlock(own.room)
            unlock(own.door)
            # File locks are not fair: without a pause this process could acquire it again first.
            time.sleep(_PAUSE_S)
            if training:
                self.enter()

    def enter(self) -> None:
        """Begin or continue training; wait while a process measures or waits to measure."""
        known = dict(self._locks)
        lanes = self._all()
        if self._training and self._locks == known and all(_open_door(lane) for lane in lanes):
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

    def _all(self) -> list[_Locks]:
        """Return the locks of every device that was measured on this host, and of this one.

        A file that was replaced is opened again: systems remove old files from `/tmp`.
        """
        try:
            make_shared_folder(self._folder)
            present = _inodes(self._folder)
            self._refresh(self._name, present)
        except OSError as error:
            raise ProfilingError(
                f"{self._folder}: cannot be used for the measurement lane ({error.strerror}); "
                "remove it, or set NAS_LANE_DIR to a folder that can be written"
            ) from None
        for name in present:
            with suppress(OSError):  # whatever another user has put there, it is no lane
                self._refresh(name, present)
        return [self._locks[name] for name in sorted(self._locks)]

    def _refresh(self, name: str, present: Mapping[str, tuple[int, ...]]) -> None:
        """Open the files of a device, unless the ones that are present are open already."""
        known = self._locks.get(name)
        if known is None or known.inodes != present.get(name):
            paths = (self._folder / f"{name}.{part}" for part in _Locks._fields)
            self._locks[name] = _Locks(*map(open_shared_file, paths))
            if known is not None:
                _close({name: known})


def default_folder() -> Path:
    """Return the folder of the lock files: `$NAS_LANE_DIR`, or the one that all users share."""
    if chosen := os.environ.get("NAS_LANE_DIR"):
        return Path(chosen).absolute()
    return Path("/tmp" if os.name == "posix" else tempfile.gettempdir()) / "nas-lanes"


def _inodes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the numbers of the files of each device, in the order of `_Locks`."""
    with os.scandir(folder) as entries:
        found = {entry.name: entry.inode() for entry in entries}
    doors = (name for name in found if name.endswith(".door"))
    names = {door.removesuffix(".door") for door in doors}
    return {
        name: tuple(found.get(f"{name}.{part}", -1) for part in _Locks._fields) for name in names
    }


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


def _close(locks: dict[str, _Locks]) -> None:
    for lane in locks.values():
        lane.door.close()
        lane.room.close()
