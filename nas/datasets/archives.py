"""Read the pictures of an archive, without leaving its folder or filling the disk.

Pictures and tables are unpacked, everything else is not.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from nas.datasets.listing import SUFFIXES, is_foreign
from nas.datasets.unpacking import Target, unpacked_once
from search_spaces.errors import UserError, quoted

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TABLES = frozenset({".csv", ".txt"})

Member = tuple[str, int, IO[bytes] | None]
"""Name, length in bytes, and content; None for a member that is no ordinary file."""


def is_archive(path: Path) -> bool:
    """Return whether a file's name is that of an archive."""
    return path.name.lower().endswith(ENDINGS)


def unpacked(path: Path) -> Path:
    """Return the folder in the cache that has the pictures of an archive.

    Raises:
        UserError: the archive is damaged, has names outside its folder or unpacks to too much.
    """
    return unpacked_once(path, [path], _unpack)


def _unpack(target: Target) -> None:
    for name, length, content in _members(target.source):
        place = _inside(target.source, name)
        target.count(length)
        if content is not None and _is_wanted(place):
            target.write(place, content)


def _members(path: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or (info.external_attr >> 16) & 0o170000 == 0o120000:  # a link
                    yield info.filename, 0, None
                    continue
                with archive.open(info) as content:
                    yield info.filename, info.file_size, content
        return
    with tarfile.open(path) as tape:
        for member in tape:
            yield member.name, member.size, tape.extractfile(member) if member.isreg() else None


def _inside(path: Path, name: str) -> PurePosixPath:
    """Return the relative place of a member.

    Raises:
        UserError: it is outside the archive's folder.
    """
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or PureWindowsPath(name).drive:
        raise UserError(f"{path}: has a file outside its folder, {quoted(name)}; do not use it")
    return place


def _is_wanted(place: PurePosixPath) -> bool:
    ending = place.suffix.lower()
    return (ending in SUFFIXES or ending in _TABLES) and not any(map(is_foreign, place.parts))
