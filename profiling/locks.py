"""File locks between processes, on Linux, macOS and Windows.

A lock belongs to an open file. It ends when it is released, when the file is closed or when its
process ends, however that happens: the operating system sees to it. So nothing is left to clean up,
and two open files of one process exclude each other as those of two processes do.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

import portalocker
from portalocker import LockFlags


def lock(file: IO[Any], *, shared: bool = False) -> None:
    """Wait until `file` is locked: alone, or together with all others that share it.

    Raises:
        OSError: the file system has no locks.
    """
    while not _lock(file, shared, LockFlags(0)):
        pass  # Windows gives up after ten seconds; here the wait goes on


def try_lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock `file` without waiting; return False where others hold it.

    Raises:
        OSError: the file system has no locks.
    """
    return _lock(file, shared, LockFlags.NON_BLOCKING)


def unlock(file: IO[Any]) -> None:
    """Release the lock of `file`, if it has one."""
    with suppress(portalocker.LockException):  # Windows calls it an error if it has none
        portalocker.unlock(file)


def _lock(file: IO[Any], shared: bool, waiting: LockFlags) -> bool:
    kind = LockFlags.SHARED if shared else LockFlags.EXCLUSIVE
    try:
        portalocker.lock(file, kind | waiting)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise OSError(f"{file.name}: cannot be locked ({error})") from error
    return True
