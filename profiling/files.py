"""Write files atomically: a file has its complete content or does not exist.

The content is written to a partial file in the same folder, flushed to the disk, and renamed, which
is atomic. The name of a partial file contains the host and the process, so that processes do not
share one, and the files of killed processes can be distinguished from those of running ones. The
threads of a process must not write the same file at the same time.
"""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from profiling.errors import ProfilingError

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Numbers of the errors of a disk that is full or can only be read."""

_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]*)\.(?P<pid>\d+)\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a partial file that the body writes; afterwards it replaces `path`.

    If the body fails, `path` is not changed and the partial file is removed.

    Raises:
        OSError: the file cannot be flushed or renamed.
    """
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` with `content` atomically.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield the path of a partial folder that the body fills; afterwards it becomes `path`.

    If the body fails, there is no `path` and the partial folder is removed. What killed processes
    of this host left of the same folder is removed before.

    Raises:
        OSError: the folder cannot be created, or `path` exists by then.
    """
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if left == partial or _is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        for file in filter(Path.is_file, partial.rglob("*")):
            with file.open("r+b") as opened:
                os.fsync(opened.fileno())
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def behind_links(path: Path) -> Path:
    """Return the path that a symbolic link leads to; other paths only become absolute.

    Raises:
        OSError: the links lead in a circle, or cannot be followed.
    """
    with suppress(FileNotFoundError):  # a new file, or the target of a link that does not exist yet
        path.stat()  # `resolve` raises a RuntimeError for a circle before Python 3.13
    return path.resolve()


def require_writable(folder: Path) -> None:
    """Check, before long work, that files can be made in a folder; it need not exist yet.

    Raises:
        ProfilingError: the folder cannot be made or written to.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    code = 0 if os.access(place, os.W_OK | os.X_OK) else errno.EACCES
    code = code if place.is_dir() else errno.ENOTDIR
    if code:
        raise ProfilingError(
            f"{folder.absolute()}: cannot be written ({os.strerror(code)}); choose another folder"
        )


def sweep(folder: Path) -> None:
    """Remove the partial files of ended processes of this host.

    Only `folder` and the folders directly in it are searched.
    """
    for path in [*folder.glob(".*.part"), *folder.glob("*/.*.part")]:
        if _is_left(path):
            with suppress(OSError):
                path.unlink()


@contextmanager
def swept(*folders: Path) -> Iterator[None]:
    """Call `sweep` for the folders before and after the body, in which processes may be killed."""
    for folder in folders:
        sweep(folder)
    try:
        yield
    finally:
        for folder in folders:
            sweep(folder)


def _is_left(path: Path) -> bool:
    """Whether a path is the partial file or folder of an ended process of this host."""
    found = _PARTIAL.fullmatch(path.name)
    return bool(found and found["host"] == _host() and not psutil.pid_exists(int(found["pid"])))


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())
