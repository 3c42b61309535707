"""Unpack the pictures of an archive into the cache, without leaving its folder or filling the disk.

Pictures and tables are unpacked, everything else is not. An archive is unpacked again when its
path, length or modification time changes.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import IO

from nas.datasets.cache import cache_directory
from nas.datasets.dataset import fingerprint_of
from nas.datasets.listing import SUFFIXES, is_foreign
from search_spaces.errors import UserError, quoted

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_TABLES = frozenset({".csv", ".txt"})
_RATIO = 100
_ALWAYS_BYTES = 50 * 10**6
"""An archive that unpacks to more than this and to more than `_RATIO` times its length is refused:
pictures are compressed already."""

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
    state = path.stat()
    key = fingerprint_of(archive=[str(path.resolve()), state.st_size, state.st_mtime_ns])
    home = cache_directory() / "archives"
    folder = home / key
    if folder.is_dir():
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=home, prefix=".unfinished-") as scratch:
            target = Path(scratch) / key
            target.mkdir()
            _unpack(path, target, state.st_mtime_ns)
            target.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return folder
        raise UserError(
            f"{path}: cannot be unpacked into {home} ({error.strerror or error})"
        ) from None
    return folder


def _unpack(path: Path, target: Path, time_ns: int) -> None:
    total, most = 0, max(_ALWAYS_BYTES, _RATIO * path.stat().st_size)
    most = min(most, shutil.disk_usage(target).free)
    with _refusing(path):
        for name, length, content in _members(path):
            place = _inside(path, name)
            total += length
            if total > most:
                raise UserError(
                    f"{path}: unpacks to more than {most / 1e6:,.0f} MB, which pictures do not; "
                    "unpack it yourself and give the folder"
                )
            if content is not None and _is_wanted(place):
                file = target / place
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as written:
                    shutil.copyfileobj(content, written)
                os.utime(file, ns=(time_ns, time_ns))


def _members(path: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(path):
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


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decompressors raise many types for a damaged archive
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        text = " ".join(str(error).split())[:60] or type(error).__name__
        raise UserError(f"{path}: damaged, or no archive ({text})") from None
