"""Write pictures that exist in Python only into class folders, which a study reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.errors import UserError


def write_pictures(items: Any, folder: Path) -> int:
    """Write pictures as PNG files into a folder, which `data.path` of a study then names.

    Args:
        items: A `torch.utils.data.Dataset`, an array `(n, height, width[, channels])` or any other
            iterable. An item is a picture or a tuple that begins with a picture and a label, whose
            text becomes the class folder. A picture is one of Pillow, an array `(height, width[,
            channels])` or a tensor `(channels, height, width)`, of uint8 or of floats in [0, 1].
        folder: A new or empty folder.

    Returns:
        The number of pictures.

    Raises:
        UserError: the folder is not empty, or an item is no picture.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; give a new folder")
    count = 0
    for item in _each(items):
        picture, label = (item[0], item[1]) if isinstance(item, tuple | list) else (item, "")
        place = folder / re.sub(r"[^\w .+-]", "_", str(_plain(label))).strip(". ")
        place.mkdir(parents=True, exist_ok=True)
        _as_picture(picture, count).save(place / f"{count:07d}.png")
        count += 1
    return count


def _each(items: Any) -> Iterator[Any]:
    """Yield the items of a data set by number where it has a length, as torch does."""
    if hasattr(items, "__len__") and hasattr(items, "__getitem__"):
        yield from (items[number] for number in range(len(items)))
    elif isinstance(items, Iterable):
        yield from items
    else:
        raise UserError(f"items: {type(items).__name__} is no data set, array or iterable")


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label


def _as_picture(picture: Any, number: int) -> Any:
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    is_tensor = type(picture).__module__.partition(".")[0] == "torch"
    array = np.asarray(picture.detach().cpu() if is_tensor else picture)
    if is_tensor and array.ndim == 3:
        array = array.transpose(1, 2, 0)
    if array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1:
        array = np.rint(array * 255).astype(np.uint8)
    known = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4))
    if array.dtype != np.uint8 or not known:
        raise UserError(
            f"items: number {number} is no picture but {array.dtype} {array.shape}; give uint8 or "
            "floats in [0, 1], (height, width[, channels]) or a tensor (channels, height, width)"
        )
    return Image.fromarray(array.squeeze(-1) if array.shape[-1:] == (1,) else array)
