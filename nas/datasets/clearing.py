"""Remove cached sets of images that no process uses."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nas.datasets.cache import cache_directory
from nas.datasets.in_use import alone
from nas.datasets.unpacking import HOME

_COUNT = re.compile(r"-\d+$")


def cached_sets() -> Mapping[str, Sequence[Path]]:
    """Return the files and folders of each cached set, by the name of its lock."""
    found = defaultdict[str, list[Path]](list)
    for name, path in _named():
        found[name].append(path)
    return dict(sorted(found.items()))


def _named() -> Iterator[tuple[str, Path]]:
    for path in _inside("datasets"):  # STEM-COUNT.PART, STEM.lock
        yield _COUNT.sub("", path.name.partition(".")[0]) or path.name, path
    for path in _inside(HOME):  # KEY, .unfinished-KEY-RANDOM
        key = path.name.removeprefix(".unfinished-").partition("-")[0]
        yield f"unpacked-{key}", path


def _inside(name: str) -> list[Path]:
    folder = cache_directory() / name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def bytes_in(paths: Sequence[Path]) -> int:
    """Return the bytes of files and of all files in folders."""
    files = (file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]))
    return sum(file.stat().st_size for file in files if file.is_file())


def clear() -> tuple[int, list[str]]:
    """Remove every set that no process uses; return the bytes freed and the names of the others.

    Raises:
        OSError: a file cannot be removed.
    """
    freed, kept = 0, []
    for name, paths in cached_sets().items():
        with alone(cache_directory(), name) as unused:
            if not unused:
                kept.append(name)
                continue
            freed += bytes_in(paths)
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return freed, kept
