"""A `.npy` file of known shape and type: its space is reserved, and no foreign header is parsed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

_UNSUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_ZEROS = bytes(1 << 20)
_ROWS = 512


@dataclass(frozen=True)
class ArrayFile:
    """A file that holds one array of this shape and type."""

    path: Path
    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    @property
    def size(self) -> int:
        """Length of the whole file in bytes."""
        return len(self._header) + np.dtype(self.dtype).itemsize * int(np.prod(self.shape))

    def open(self, mode: Literal["r", "r+"] = "r") -> npt.NDArray[Any] | None:
        """Return the memory-mapped array; None without a file of exactly this shape and type."""
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):  # opening a FIFO would block
                return None
            with self.path.open("rb") as file:
                whole = os.fstat(file.fileno()).st_size == self.size
                if not whole or file.read(len(self._header)) != self._header:
                    return None
            return self._mapped(mode)
        except OSError:
            return None

    def create(self) -> npt.NDArray[Any]:
        """Create the file with all its space reserved; return the memory-mapped array of zeros.

        Writing to a mapped file kills the process if the disk is full.

        Raises:
            OSError: the file cannot be created, or the disk has too little space.
        """
        with self.path.open("wb") as file:
            file.write(self._header)
            file.flush()
            _reserve(file, self.size)
        return self._mapped("r+")

    def flush(self) -> None:
        """Write the file to the disk.

        Raises:
            OSError: it cannot be written.
        """
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def state(self) -> list[int]:
        """Return numbers that change with every change of the file, also if its time is set back.

        Raises:
            OSError: there is no such file.
        """
        found = self.path.stat()
        return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]

    @cached_property
    def _header(self) -> bytes:
        described = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(self.dtype)),
            "fortran_order": False,
            "shape": self.shape,
        }
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, described)
        return buffer.getvalue()

    def _mapped(self, mode: Literal["r", "r+"]) -> npt.NDArray[Any]:
        return np.memmap(self.path, self.dtype, mode, len(self._header), self.shape)


def digest(array: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of an array's shape and content, in hexadecimal digits."""
    found = hashlib.sha256(repr(array.shape).encode())
    for start in range(0, len(array), _ROWS):
        found.update(np.ascontiguousarray(array[start : start + _ROWS]).data)
    return found.hexdigest()


def _reserve(file: IO[bytes], size: int) -> None:
    """Extend a file to `size` bytes that the file system has set aside."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # macOS and Windows
        _write_zeros(file, size)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _write_zeros(file, size)


def _write_zeros(file: IO[bytes], size: int) -> None:
    file.seek(0, os.SEEK_END)
    while (left := size - file.tell()) > 0:
        file.write(_ZEROS[:left])
    file.flush()
