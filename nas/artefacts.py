"""The files that an evaluation writes: their names, and the error if one cannot be written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiling import files
from search_spaces.errors import UserError

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
"""The state of an unfinished training, and the weights of its best epoch."""

RECONSTRUCTIONS, PRIOR_SAMPLES = "reconstructions.npy", "prior_samples.npy"
"""Images that a trained model decodes: from validation images, and from latents of N(0, 1)."""

PICTURES = RECONSTRUCTIONS, PRIOR_SAMPLES
"""The files of a trial that a report shows."""

_LONGEST_HEADER = 500  # bytes; that of an array of images has at most 118


def write_or_refuse(path: Path, content: bytes) -> None:
    """Write a file as `profiling.files.write_whole` does, with an error for the user if it fails.

    Raises:
        UserError: the file cannot be written; an earlier file of that name is unchanged.
    """
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise _refusal(path, error) from None


def folder_or_refuse(path: Path) -> Path:
    """Create a folder with its parents unless it exists; return it.

    Raises:
        UserError: it cannot be created, as where a file has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError):
            raise UserError(f"{path}: a file is in place of this folder; move it away") from None
        raise _refusal(path, error) from None
    return path


def read_pixels(path: Path) -> NDArray[np.uint8] | None:
    """Return images uint8 `(n, 1 or 3, height, width)` of a `.npy` file; None if it has none.

    A foreign header is neither evaluated without a limit nor believed before the file's length
    agrees with it.
    """
    try:
        if not path.is_file():  # opening a FIFO would wait for ever
            return None
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(file, _LONGEST_HEADER)
            pixels = len(shape) == 4 and shape[1] in (1, 3) and min(shape) > 0
            size = path.stat().st_size - file.tell()
            if not pixels or dtype != np.uint8 or math.prod(shape) != size:
                return None
            return np.fromfile(file, np.uint8).reshape(shape, order="F" if by_column else "C")
    except Exception:  # numpy's parser raises many types for a damaged header
        return None


@contextmanager
def full_disk_refused(where: Path) -> Iterator[None]:
    """Raise `UserError` with the remedy if the body fails on a full or read-only disk.

    Args:
        where: The path to name if the error names none.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in files.FULL_DISK:
            raise
        raise _refusal(Path(error.filename or where), error) from None


def _refusal(path: Path, error: OSError) -> UserError:
    remedy = "; make room and run the same command again: nothing finished is lost"
    shown = remedy if error.errno in files.FULL_DISK else ""
    return UserError(f"{path}: cannot be written ({error.strerror}){shown}")
