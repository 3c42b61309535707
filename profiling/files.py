"""Files that appear under their name whole or not at all, whenever the writer is stopped.

The content is written to a partial file in the same folder, flushed to the disk, and renamed, which
is atomic. A partial file's name holds the host and the process: no two writers share one, and what
a killed process left can be told from what a living one is writing.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PARTIAL = re.compile(r"\..+\.(?P<host>[^.]*)\.(?P<pid>\d+)\.part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a partial file for the body to write; then let it replace `path`.

    If the body fails, `path` stays as it was and the partial file is removed.

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
    """Replace `path` with `content` in one step; a reader or a crash sees the old file or the new.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with replacing(path) as partial:
        partial.write_bytes(content)


def sweep(folder: Path) -> None:
    """Remove the partial files of processes of this host that no longer exist.

    Looks in `folder` and in the folders directly below it.
    """
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


def _host() -> str:
    return re.sub(r"[^\w-]", "-", platform.node())
