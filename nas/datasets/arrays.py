"""Images in the rows of an array: `.npy`, or `.npz` with labels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.datasets.decoding import BITS, Header, Picture, Shape, converted
from nas.datasets.sources import States, states_of
from profiling.resources import available_memory_bytes
from search_spaces.errors import UserError

ENDINGS = (".npy", ".npz")
_MOST_CLASSES = 100
_LEAST_SIDE = 5  # `(height, width, 3 or 4)` is one picture, and no row of pictures


@dataclass(frozen=True)
class Arrays:
    """The images of an array as a source of pictures.

    Attributes:
        path: The file.
        images: uint8, uint16 or float in [0, 1], `(n, height, width[, 1 or 3 or 4])`.
    """

    path: Path
    images: NDArray[Any]

    @property
    def where(self) -> str:
        """Name for messages."""
        return str(self.path)

    @cached_property
    def names(self) -> Sequence[str]:
        """Row numbers as texts."""
        return tuple(f"{row:07d}" for row in range(len(self.images)))

    def states(self) -> States:
        """Return a number for each row, and path, length and modification time of the file."""
        state, path = self.path.stat(), str(self.path.resolve())
        rows = range(len(self.images))
        return states_of((path, state.st_size, state.st_mtime_ns, row) for row in rows)

    def pictures(self, row: int, shapes: Sequence[Shape]) -> list[Picture]:
        """Convert one row to each of the shapes."""
        return [self._picture(row, shape) for shape in shapes]

    def _picture(self, row: int, shape: Shape) -> Picture:
        from PIL import Image

        pixels = np.asarray(self.images[row])
        if pixels.ndim == 3 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        if pixels.dtype.kind == "f":
            pixels = _eight_bit(pixels)
        elif pixels.dtype == np.uint16 and pixels.ndim == 3:
            pixels = _eight_bit(pixels / (2 ** (shape.bits or BITS[-1]) - 1))
        return converted(Image.fromarray(np.ascontiguousarray(pixels)), shape)

    def header(self, row: int) -> Header:
        """Return type and shape of one row."""
        height, width = self.images.shape[1:3]
        channels = self.images.shape[3] if self.images.ndim == 4 else 1
        mode = f"{self.images.dtype} of {channels} channel{'s' * (channels > 1)}"
        return Header("array", mode, width, height)

    def bits(self) -> int:
        """Return the smallest range that the levels of up to 64 rows need, in bits."""
        if self.images.dtype != np.uint16:
            return BITS[-1]
        probed = self.images[:: max(1, len(self.images) // 64)]
        return next((bits for bits in BITS if probed.max() < 2**bits), BITS[-1])


def _eight_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values in [0, 1] as levels.

    Raises:
        ValueError: they are not in [0, 1].
    """
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError("values outside 0 to 1")
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels


def read_arrays(path: Path) -> tuple[Arrays, tuple[str, ...]]:
    """Read the images of an array file and the class of each, if the file has labels.

    Raises:
        UserError: the file is damaged, too large, or has no images.
    """
    arrays = _arrays(path)
    images = {name: one for name, one in arrays.items() if _is_images(one)}
    if len(images) != 1:
        listed = ", ".join(f"{n or 'array'} {v.dtype} {v.shape}" for n, v in arrays.items())
        raise UserError(
            f"{path}: has {len(images)} arrays of images among {listed or 'none'}; give one of "
            "uint8, uint16 or float in [0, 1] and of shape (n, height, width) or (n, height, "
            f"width, channels) with 1, 3 or 4 channels and sides of at least {_LEAST_SIDE} pixels"
        )
    (found,) = images.values()
    return Arrays(path, found), _classes(arrays, len(found))


def _arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        if path.suffix.lower() == ".npy":
            return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > available_memory_bytes() // 2:
            raise UserError(f"{path}: needs {size / 1e9:,.1f} GB of memory; save it as .npy")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except UserError:
        raise
    except Exception as error:  # numpy's parser raises many types for a damaged file
        text = " ".join(str(error).split())[:80] or type(error).__name__
        raise UserError(f"{path}: cannot be read as an array ({text})") from None


def _is_images(array: NDArray[Any]) -> bool:
    levels = array.dtype in (np.uint8, np.uint16) or array.dtype.kind == "f"
    shape = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] in (1, 3, 4))
    return levels and shape and min(array.shape) > 0 and min(array.shape[1:3]) >= _LEAST_SIDE


def _classes(arrays: Mapping[str, NDArray[Any]], count: int) -> tuple[str, ...]:
    """Return the class of each image: the one integer array `(n,)` or `(n, 1)` of few values."""
    for array in arrays.values():
        if array.dtype.kind in "iu" and array.size == count and array.ndim in (1, 2):
            labels = array.ravel()
            if 2 <= len(np.unique(labels)) <= _MOST_CLASSES:
                return tuple(map(str, labels.tolist()))
    return ("",) * count
