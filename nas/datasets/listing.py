"""List the pictures below a folder: which files are pictures, their folders' meaning, what else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from search_spaces.errors import UserError

_ENDINGS = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
    *(".tif", ".tiff", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
SUFFIXES = frozenset(_ENDINGS)
"""Endings of the names of pictures. The content decides about the format."""
FOREIGN = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"})
"""Names that operating systems add to folders; hidden files and folders are ignored too."""
PARTS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""The part of the data set that a folder of this name holds."""


@dataclass(frozen=True)
class Listing:
    """The files below a folder.

    Attributes:
        root: The folder.
        names: Paths of the pictures relative to it, sorted.
        ignored: Numbers of other files, by `hidden` or by the ending of their names.
    """

    root: Path
    names: tuple[str, ...]
    ignored: Mapping[str, int]

    @property
    def held(self) -> str:
        """What else the folder has, and what it could be."""
        if not self.names and not self.ignored:
            return "no files"
        listed = [f"{count:,} {reason}" for reason, count in list(self.ignored.items())[:4]]
        hints = [hint for name, hint in _HINTS.items() if self._has(name)][:1]
        return ", ".join(listed) + "".join(f"; {hint}" for hint in hints)

    def _has(self, pattern: str) -> bool:
        known = [*self.ignored, *(path.name.lower() for path in self.root.iterdir())]
        return any(fnmatchcase(name, pattern) for name in known)


_HINTS = {
    "img_align_celeba*": "it looks like CelebA: use kind celeba, --celeba",
    "*.hei[cf]": "HEIC files are not read: convert them to JPEG",
    "*.zip": "give the archive itself as path",
    "*.t[abgx][rz]*": "give the archive itself as path",
    "*.np[yz]": "give the array file itself as path",
    "*.parquet": "give the table itself, or a folder of tables alone, as path",
    "*.arrow": "give the table itself, or a folder of tables alone, as path",
}
"""What a folder without pictures may be, by a pattern of names and endings in small letters."""


@dataclass(frozen=True)
class Layout:
    """What the folders of pictures mean, for each picture.

    Attributes:
        parts: `train`, `validation` or `test`, if the folders are named so; else empty.
        classes: Name of the class folder; empty where there are fewer than two.
        tops: Names of the folders that state the parts.
        beside: Names of other folders that keep `train/` and `test/` from stating parts.
    """

    parts: tuple[str, ...]
    classes: tuple[str, ...]
    tops: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def list_pictures(root: Path, suffixes: Container[str] = SUFFIXES) -> Listing:
    """List the pictures below a folder; links to folders are followed, each folder is read once.

    Dangling links and files that are no ordinary files are listed: they count as unreadable.

    Raises:
        UserError: a folder cannot be read.
    """
    names, ignored = [], Counter[str]()
    for path in _files(root):
        name, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
        if is_foreign(path.name):
            ignored["hidden"] += 1
        elif suffix in suffixes:
            names.append(name)
        else:
            ignored[suffix or "no ending"] += 1
    return Listing(root, tuple(sorted(names)), dict(ignored.most_common()))


def is_foreign(name: str) -> bool:
    """Return whether a file or folder is hidden or was added by an operating system."""
    return name.startswith(".") or name in FOREIGN


def _files(root: Path) -> Iterator[Path]:
    seen = set()
    try:
        for folder, folders, files in os.walk(root, onerror=_raise, followlinks=True):
            found = os.stat(folder)  # noqa: PTH116
            if (found.st_dev, found.st_ino) in seen:
                folders.clear()
                continue
            seen.add((found.st_dev, found.st_ino))
            folders[:] = sorted(name for name in folders if not is_foreign(name))
            yield from (Path(folder, name) for name in files)
    except OSError as error:
        where = error.filename or root
        raise UserError(f"{where}: cannot be read ({error.strerror or error})") from None


def _raise(error: OSError) -> None:
    raise error


def layout_of(names: Sequence[str]) -> Layout:
    """Return the parts and classes of pictures by the folders in their names.

    Folders that all pictures share are skipped. Then `train/`, `val/` and `test/` name parts, if
    there are no other folders, and the next folders are classes.
    """
    folders = _below_shared([PurePosixPath(name).parts[:-1] for name in names])
    tops = {path[0] if path else "" for path in folders}
    named = {PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    beside = tuple(sorted(top for top in tops if top.lower() not in PARTS))
    stated = "train" in named and len(named) > 1
    if beside or not stated:
        return Layout((), _classes(folders), beside=beside if stated else ())
    parts = tuple(PARTS[path[0].lower()] for path in folders)
    classes = _classes(_below_shared([path[1:] for path in folders]))
    return Layout(parts, classes, tuple(sorted({path[0] for path in folders})))


def _below_shared(folders: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    if not folders:
        return []
    first, last, shared = min(folders), max(folders), 0
    while shared < len(first) and first[shared] == last[shared]:
        shared += 1
    return [path[shared:] for path in folders]


def _classes(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    names = tuple(path[0] if path else "" for path in folders)
    return names if len(set(names)) > 1 else ("",) * len(names)
