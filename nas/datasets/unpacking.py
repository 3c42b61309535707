"""Unpack the pictures of a file into a folder of the cache, once for each state of the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from nas.datasets.cache import cache_directory
from nas.datasets.dataset import fingerprint_of
from nas.datasets.in_use import share_until_the_end
from search_spaces.errors import UserError

HOME = "archives"
"""Folder in the cache that has the unpacked folders."""
_VERSION = 2
"""Part of the folders' names: increase it when the same file is unpacked otherwise."""
_RATIO = 100
_ALWAYS_BYTES = 50 * 10**6
"""A file that unpacks to more than this and to more than `_RATIO` times its length is refused:
pictures are compressed already."""


@dataclass
class Target:
    """A folder into which a file is unpacked.

    Attributes:
        source: The packed file or folder, for messages.
        folder: The new folder.
        most: Number of bytes that may be unpacked.
        time_ns: Modification time of the pictures.
    """

    source: Path
    folder: Path
    most: int
    time_ns: int
    unpacked: int = 0

    def count(self, length: int) -> None:
        """Count the bytes of a member; raise `UserError` if there are too many."""
        self.unpacked += length
        if self.unpacked > self.most:
            raise UserError(
                f"{self.source}: unpacks to more than {self.most / 1e6:,.0f} MB, which pictures do "
                "not, or the disk has no room for; unpack it yourself and give the folder"
            )

    def write(self, place: PurePosixPath, content: IO[bytes]) -> None:
        """Write one picture or table at a relative place."""
        file = self.folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as written:
            shutil.copyfileobj(content, written)
        os.utime(file, ns=(self.time_ns, self.time_ns))


def unpacked_once(source: Path, files: Sequence[Path], unpack: Callable[[Target], None]) -> Path:
    """Return the folder in the cache with the pictures of some files; unpack them if it is missing.

    No process removes it from the cache before this one ends.

    Args:
        source: The packed file or folder, for messages.
        files: The files that are unpacked; their paths, lengths and times identify the folder.
        unpack: Writes the pictures.

    Raises:
        UserError: the files are damaged or unpack to too much, or the cache cannot be written.
    """
    states = [(str(path.resolve()), path.stat()) for path in files]
    key = fingerprint_of(
        version=_VERSION, archive=[[name, s.st_size, s.st_mtime_ns] for name, s in states]
    )
    share_until_the_end(cache_directory(), f"unpacked-{key}")
    home = cache_directory() / HOME
    folder = home / key
    if folder.is_dir():
        return folder
    try:
        home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=home, prefix=f".unfinished-{key}-") as scratch:
            fresh = Path(scratch) / key
            fresh.mkdir()
            packed = sum(state.st_size for _, state in states)
            most = min(max(_ALWAYS_BYTES, _RATIO * packed), shutil.disk_usage(fresh).free)
            with _refusing(source):
                unpack(Target(source, fresh, most, max(s.st_mtime_ns for _, s in states)))
            fresh.rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return folder
        raise UserError(
            f"{source}: cannot be unpacked into {home} ({error.strerror or error})"
        ) from None
    return folder


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decompressors raise many types for a damaged file
        if isinstance(error, OSError) and error.errno is not None:  # of the disk
            raise
        text = " ".join(str(error).split())[:60] or type(error).__name__
        raise UserError(f"{path}: damaged, or of another kind ({text})") from None
