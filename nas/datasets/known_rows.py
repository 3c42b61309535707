"""Rows of other cached sets that have the same files at the same shape: none is decoded twice.

Each set has a file with the state of every picture in its order. A set of which one file is new
copies the rows of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nas.datasets.cache import Entry, Images, Labels, cache_directory
from nas.datasets.sources import States
from profiling.files import write_whole

_CHECK = 32  # bytes of the checksum in a file


class KnownRows:
    """The rows of a set that other sets have.

    Args:
        entry: The set, whose name is `files-KEY-SHAPE`; sets of the same shape are searched.
        states: The states of all its pictures, in its order.
    """

    def __init__(self, entry: Entry, states: States) -> None:
        self._entry, self._states, self._lock = entry, states, Lock()

    def copy_to(self, images: Images, labels: Labels, start: int) -> NDArray[np.bool_]:
        """Copy known rows from row `start` on, and return which ones were copied."""
        with self._lock:  # only one thread reads the other sets
            sets = self._others
        states, found = self._states[start : start + len(images)], np.zeros(len(images), np.bool_)
        for theirs, (their_images, their_labels) in sets:
            _, ours, rows = np.intersect1d(states, theirs, return_indices=True)
            images[ours], labels[ours], found[ours] = their_images[rows], their_labels[rows], True
        return found

    def remember(self) -> None:
        """Write the states of the set's pictures, unless it is done."""
        path = _path(self._entry.stem)
        if not path.is_file():
            content = self._states.astype("<u8").tobytes()
            with suppress(OSError):  # its rows are decoded again where they are needed
                write_whole(path, hashlib.sha256(content).digest() + content)

    @cached_property
    def _others(self) -> list[tuple[States, tuple[Images, Labels]]]:
        return [one for one in self._searched() if np.isin(self._states, one[0]).any()]

    def _searched(self) -> Iterator[tuple[States, tuple[Images, Labels]]]:
        shape = self._entry.stem.split("-", 2)[2]
        for path in sorted(_path("").parent.glob(f"files-*-{shape}.states.bin")):
            stem = path.name.partition(".")[0]
            if stem == self._entry.stem or (states := _read(path)) is None:
                continue
            if (found := replace(self._entry, stem=stem).largest()) is not None:
                yield states[: len(found[0])], found


def _path(stem: str) -> Path:
    return cache_directory() / "datasets" / f"{stem}.states.bin"


def _read(path: Path) -> States | None:
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError:
        return None
    check, rest = content[:_CHECK], content[_CHECK:]
    if len(rest) % 8 or hashlib.sha256(rest).digest() != check:
        return None
    return np.frombuffer(rest, "<u8")
