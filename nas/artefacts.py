"""Files that an evaluation leaves: their names, and how they are written so that none is half.

A file appears under its name whole or not at all, also when the process is killed or the disk full.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from search_spaces.errors import UserError

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
"""A training's state while it is not over, and the weights of its best epoch."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]*)\.(?P<pid>\d+)\.part")


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` with `content` in one step; a reader or a crash sees the old file or the new.

    Raises:
        UserError: it cannot be written; what was there before still is.
    """
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}){_remedy(error)}") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def sweep(folder: Path) -> None:
    """Remove what processes of this host that are gone had not written to the end."""
    for path in [*folder.glob(".*.part"), *folder.glob("*/.*.part")]:
        found = _PARTIAL.fullmatch(path.name)
        if found and found["host"] == _host() and not psutil.pid_exists(int(found["pid"])):
            with suppress(OSError):
                path.unlink()


@contextmanager
def swept(*folders: Path) -> Iterator[None]:
    """Sweep the folders before and after: a process that is killed in the body leaves nothing."""
    for folder in folders:
        sweep(folder)
    try:
        yield
    finally:
        for folder in folders:
            sweep(folder)


@contextmanager
def full_disk_refused(where: Path) -> Iterator[None]:
    """Raise `UserError` with the remedy where the body meets a full or read-only disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"{error.filename or where}: cannot be written ({error.strerror}){_remedy(error)}"
        ) from None


def _remedy(error: OSError) -> str:
    if error.errno not in _FULL:
        return ""
    return "; make room and run the same command again: nothing finished is lost"


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())
