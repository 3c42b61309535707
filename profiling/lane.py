"""One measurement at a time per device, with training on this host paused meanwhile.

A measurement beside a running training is not only noisier but biased. So whoever trains enters the
lane's room before each batch together with others, and whoever measures has it alone. Two file
locks make this work between unrelated processes; the kernel frees them with their holder, however
it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiling.errors import ProfilingError


class Lane:
    """The measurement lane of one device on this host.

    Two locks: `room` is shared by trainings and held alone by a measurement; `door` is held alone
    by a measurement from the moment it wants the room. Trainings pass the door before each batch,
    so they cannot keep the room by coming and going, and a measurement waits for one batch at most.

    Args:
        device: As torch writes it ("cpu", "cuda:0"): different devices have different lanes.
        folder: Where the lock files live: the same for every process that shares the device.
    """

    def __init__(self, device: str, folder: Path | None = None) -> None:
        folder = folder or Path(tempfile.gettempdir()) / f"nas-lanes-{os.getuid()}"
        name = re.sub(r"\W", "-", device)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._door = os.open(folder / f"{name}.door", os.O_RDWR | os.O_CREAT, 0o600)
            self._room = os.open(folder / f"{name}.room", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ProfilingError(
                f"{folder}: cannot be written ({error.strerror}); set TMPDIR to a folder that can"
            ) from None
        weakref.finalize(self, _close, self._door, self._room)
        self._training = False
        self.waited_s = 0.0

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Have the device alone; a training of this process leaves for that time."""
        training = self._training
        self.leave()
        with self._waiting():
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._room, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)
            fcntl.flock(self._door, fcntl.LOCK_UN)
            if training:
                self.enter()

    def enter(self) -> None:
        """Begin or go on training: wait while somebody measures or wants to."""
        if self._training and _try_shared(self._door):
            fcntl.flock(self._door, fcntl.LOCK_UN)
            return
        self.leave()
        with self._waiting():
            fcntl.flock(self._door, fcntl.LOCK_SH)
            fcntl.flock(self._room, fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        self._training = True

    def leave(self) -> None:
        """Stop training: measurements need not wait for this process."""
        fcntl.flock(self._room, fcntl.LOCK_UN)
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


def _close(*files: int) -> None:
    for file in files:
        os.close(file)


def _try_shared(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
