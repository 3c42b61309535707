"""Where pictures come from: files below a folder, or the rows of an array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.datasets.decoding import BITS, Header, Picture, Shape, decoded_at, opened, peak_level

_DEEP = (".tif", ".tiff", ".png", ".jp2", ".j2k", ".jpx")
"""Endings of files that may have greys of more than 8 bits and do not state their range."""
_PROBED = 64
"""Number of files whose levels are looked at."""


States = NDArray[np.uint64]
"""A number for each picture, `(pictures,)`; equal for equal states only."""


def states_of(states: Iterable[object]) -> States:
    """Return a number for each state: the first 64 bits of the BLAKE2 hash of its text."""
    hashes = (blake2b(repr(one).encode(errors="surrogatepass"), digest_size=8) for one in states)
    return np.frombuffer(b"".join(one.digest() for one in hashes), "<u8")


class Source(Protocol):
    """Pictures in a fixed order."""

    @property
    def where(self) -> str:
        """Name for messages."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the pictures, relative to their folder."""

    def states(self) -> States:
        """Return a number for each picture that changes whenever the picture changes."""

    def pictures(self, row: int, shapes: Sequence[Shape]) -> list[Picture]:
        """Decode one picture, and convert it to each of the shapes.

        Raises:
            Exception: of any type, as decoders raise them.
        """

    def header(self, row: int) -> Header:
        """Read what is known of a picture without decoding it; raise exceptions of any type."""

    def bits(self) -> int:
        """Return the range of greys of more than 8 bits, in bits."""


@dataclass(frozen=True)
class Files:
    """Picture files below a folder.

    Attributes:
        root: The folder.
        names: Paths relative to it.
        given: What was given for it, such as an archive; empty for the folder itself.
    """

    root: Path
    names: Sequence[str]
    given: str = ""

    @property
    def where(self) -> str:
        """Name for messages."""
        return self.given or str(self.root)

    def states(self) -> States:
        """Return a number for path, length, modification time and permissions of every file.

        A file that could not be read for its permissions is read again once these have changed.
        """
        root = str(self.root.resolve())
        stats = ((name, _stat(self.root / name)) for name in self.names)
        return states_of(
            (root, name, one.st_size, one.st_mtime_ns, one.st_mode) for name, one in stats
        )

    def pictures(self, row: int, shapes: Sequence[Shape]) -> list[Picture]:
        """Decode one picture; raise an exception of any type, as decoders do."""
        return decoded_at(self.root / self.names[row], shapes)

    def header(self, row: int) -> Header:
        """Read the header of a file; raise an exception of any type, as decoders do."""
        with opened(self.root / self.names[row]) as image:
            return Header(str(image.format), image.mode, *image.size)

    def bits(self) -> int:
        """Return the smallest range that the levels of up to 64 files need, in bits.

        A 12-bit camera stores 12 bits in files of 16: scaled by 16 they would be nearly black.
        """
        deep = [name for name in self.names if Path(name).suffix.lower() in _DEEP]
        probed = deep[:: max(1, len(deep) // _PROBED)][:_PROBED]
        peaks = [peak_level(self.root / name) for name in probed]
        most = max((peak for peak in peaks if peak is not None), default=None)
        if most is None:
            return BITS[-1]
        return next((bits for bits in BITS if most < 2**bits), BITS[-1])


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:  # a dangling link, or removed meanwhile
        return os.stat_result((0,) * 10)
