"""File locks between processes, on Linux, macOS and Windows.

A lock belongs to an open file. The operating system releases it when it is unlocked, when the file
is closed, and when the process ends for any reason, so no cleaning up is needed. Two open files of
one process exclude each other like those of two processes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

import portalocker
from portalocker import LockFlags

from profiling.errors import ProfilingError


def lock(file: IO[Any], *, shared: bool = False) -> None:
    """Acquire an exclusive or a shared lock of `file`, waiting until it is available.

    Raises:
        ProfilingError: the file system does not support locks.
    """
    while not _lock(file, shared, LockFlags(0)):
        pass  # Windows stops waiting after ten seconds


def try_lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Try to acquire a lock of `file` without waiting; return whether it was acquired.

    Raises:
        ProfilingError: the file system does not support locks.
    """
    return _lock(file, shared, LockFlags.NON_BLOCKING)


def unlock(file: IO[Any]) -> None:
    """Release the lock of `file`, if it has one."""
    with suppress(portalocker.LockException):  # raised on Windows if there is no lock
        portalocker.unlock(file)


def _lock(file: IO[Any], shared: bool, waiting: LockFlags) -> bool:
    kind = LockFlags.SHARED if shared else LockFlags.EXCLUSIVE
    try:
        portalocker.lock(file, kind | waiting)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise ProfilingError(
            f"{file.name}: cannot be locked ({error}); choose a folder on a file system with locks"
        ) from error
    return True
