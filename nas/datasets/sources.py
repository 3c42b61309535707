"""Where pictures come from: files below a folder, or the rows of an array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nas.datasets.decoding import BITS, Header, Picture, Shape, decoded, opened, peak_level

_DEEP = (".tif", ".tiff", ".png", ".jp2", ".j2k", ".jpx")
"""Endings of files that may have greys of more than 8 bits and do not state their range."""
_PROBED = 64
"""Number of files whose levels are looked at."""


class Source(Protocol):
    """Pictures in a fixed order."""

    @property
    def where(self) -> str:
        """Name for messages."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the pictures, relative to their folder."""

    def identity(self) -> object:
        """Return what changes whenever a picture changes, as JSON can encode it."""

    def picture(self, row: int, shape: Shape) -> Picture:
        """Decode one picture.

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

    def identity(self) -> object:
        """Return the folder, and path, length and modification time of every file."""
        stats = ((name, _stat(self.root / name)) for name in self.names)
        return [str(self.root.resolve()), [(n, s.st_size, s.st_mtime_ns) for n, s in stats]]

    def picture(self, row: int, shape: Shape) -> Picture:
        """Decode one picture; raise an exception of any type, as decoders do."""
        return decoded(self.root / self.names[row], shape)

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
