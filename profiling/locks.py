"""File locks between processes, on Linux, macOS and Windows.

A lock belongs to an open file. The operating system releases it when it is unlocked, when the file
is closed, and when the process ends for any reason, so no cleaning up is needed. Two open files of
one process exclude each other like those of two processes.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import portalocker
from portalocker import LockFlags

from profiling.errors import ProfilingError

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""How a lock's file is opened; Windows has neither of the last two."""


def open_lock(path: Path) -> IO[str]:
    """Open the file of a lock, which holds nothing or the number of a process, to read and write.

    It is created if it does not exist. A symbolic link is not followed, since it may lead to a file
    that must not be written.

    Raises:
        ProfilingError: the path is a link, no regular file, or a file with other content.
        OSError: the file cannot be opened.
    """
    refusal = ProfilingError(f"{path}: is not the file of a lock; move it away, then try again")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise refusal
    file = os.fdopen(os.open(path, _FLAGS, 0o666), "r+", encoding="utf-8", errors="replace")
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or not _is_number(file):
            raise refusal
    except ProfilingError:
        file.close()
        raise
    return file


def _is_number(file: IO[str]) -> bool:
    try:
        content = file.read(20)
        file.seek(0)
    except OSError:  # on Windows no other process can read a locked file
        return True
    return not content or (content.isdecimal() and len(content) < 20)


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
