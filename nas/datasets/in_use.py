"""Locks on cached sets of images: who uses one shares its lock, who removes one needs it alone.

The locks are files in `locks/` of the cache folder. The kernel releases them with their holder.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import finalize

from profiling.errors import ProfilingError
from profiling.locks import lock, open_lock, try_lock

_UNTIL_THE_END: dict[Path, IO[str]] = {}
"""Locks that this process shares until it ends."""


def share(cache: Path, name: str) -> IO[str] | None:
    """Acquire a shared lock of a cached set; closing the file releases it.

    It waits while another process removes the set. None is returned where the cache cannot be
    written: then nobody can remove anything either.
    """
    try:
        (cache / "locks").mkdir(parents=True, exist_ok=True)
        file = open_lock(_path(cache, name))
    except (OSError, ProfilingError):
        return None
    lock(file, shared=True)
    return file


def release_with(array: Any, file: IO[str] | None) -> None:
    """Release a lock when neither a memory-mapped array nor a view of it exists any more."""
    if file is not None:
        owner = array if array.base is None or not hasattr(array.base, "base") else array.base
        finalize(owner, file.close)


def share_until_the_end(cache: Path, name: str) -> None:
    """Share the lock of a cached set until this process ends."""
    path = _path(cache, name)
    if path not in _UNTIL_THE_END and (file := share(cache, name)) is not None:
        _UNTIL_THE_END[path] = file
        atexit.register(file.close)


@contextmanager
def alone(cache: Path, name: str) -> Iterator[bool]:
    """Yield whether no process uses a cached set; then none can begin to until the body ends.

    Raises:
        OSError: the lock cannot be opened.
    """
    (cache / "locks").mkdir(parents=True, exist_ok=True)
    if own := _UNTIL_THE_END.pop(_path(cache, name), None):
        own.close()
    with open_lock(_path(cache, name)) as file:
        yield try_lock(file)


def _path(cache: Path, name: str) -> Path:
    return cache / "locks" / f"{name}.lock"
