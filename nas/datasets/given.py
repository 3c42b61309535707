"""Images that a program hands over: arrays, tensors and torch data sets.

They are written to the cache as one `.npy` file, named by its content, and are then loaded like any
array file. So worker processes and later runs read the same images.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard, get_args, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from nas.artefacts import folder_or_refuse, write_or_refuse
from nas.datasets.cache import cache_directory
from nas.datasets.dataset import DataConfig, Kind
from nas.own.imports import told
from search_spaces.errors import UserError, refusal
from search_spaces.import_strings import import_string_of, is_import_string

_CHANNELS = (1, 3)


@runtime_checkable
class Items(Protocol):
    """A data set whose items are read by number, such as a map-style `torch.utils.data.Dataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


Images = NDArray[Any] | torch.Tensor | Items
"""Images in memory: `(n, height, width[, channels])` or `(n, channels, height, width)`.

They are uint8, or floats in [0, 1]. The items of a data set are such images without `n`, pictures
of Pillow, or tuples that begin with one of these.
"""

Data = DataConfig | Mapping[str, Any] | str | Path | Images | Callable[..., Any] | None
"""What names or holds the images of a study; None renders faces."""


def as_config(data: Data) -> DataConfig:
    """Return the configuration of images: of a kind, of a folder or file, or of images in memory.

    Args:
        data: A configuration or its keys; a kind, such as `faces` or `mypkg.data:mine`, or the
            function of that name; the path of a folder, an archive or an array file; or images in
            memory, which are written to the cache.

    Raises:
        UserError: the images have another shape, type or range, or differ between two reads.
    """
    if isinstance(data, DataConfig):
        return data
    if data is None or isinstance(data, Mapping):
        return _validated(data or {})
    if isinstance(data, str) and (data in get_args(Kind) or is_import_string(data)):
        return _validated({"kind": data})
    if callable(data) and not isinstance(data, Items):
        return _validated({"kind": import_string_of(data)})
    if isinstance(data, str | Path):
        return DataConfig(kind="folder", path=Path(data))
    return DataConfig(kind="folder", path=saved(data))


def _validated(keys: Mapping[str, Any]) -> DataConfig:
    try:
        return DataConfig.model_validate(dict(keys))
    except ValidationError as error:
        raise refusal(error, "data", DataConfig) from None


def saved(images: Images, name: str = "data") -> Path:
    """Write images in memory to the cache; return the path of their `.npy` file.

    Args:
        images: The images.
        name: What they are called in messages.

    Raises:
        UserError: they have another shape, type or range, or differ between two reads.
    """
    pixels = as_pixels(images, name)
    content = io.BytesIO()
    np.save(content, pixels, allow_pickle=False)
    digest = hashlib.sha256(content.getbuffer()).hexdigest()[:16]
    path = folder_or_refuse(cache_directory() / "given") / f"{digest}.npy"
    if not path.is_file() or path.stat().st_size != content.getbuffer().nbytes:
        write_or_refuse(path, content.getvalue())
    return path


def as_pixels(images: Images, name: str = "data") -> NDArray[np.uint8]:
    """Return images in memory as uint8 `(n, height, width, channels)`, with 1 or 3 channels.

    Raises:
        UserError: they have another shape, type or range, or differ between two reads.
    """
    if isinstance(images, torch.Tensor):
        return _pixels(images.detach().cpu().numpy(), name, first=True)
    if isinstance(images, np.ndarray):
        return _pixels(images, name)
    if _is_items(images):
        return _pixels_of_items(images, name)
    raise UserError(
        f"{name}: {type(images).__name__} holds no images; give an array, a tensor, a torch "
        "Dataset, or the path of a folder"
    )


def _is_items(images: object) -> TypeGuard[Items]:
    return isinstance(images, Items) and not isinstance(images, str | bytes | Mapping)


def _pixels_of_items(items: Items, name: str) -> NDArray[np.uint8]:
    rows = [_item(items, row, name) for row in range(len(items))]
    if not rows:
        raise UserError(f"{name}: holds no images")
    _require_equal(rows, [row.shape for row in rows], name)
    for row in sorted({0, len(rows) // 2, len(rows) - 1}):
        if not np.array_equal(_item(items, row, name), rows[row]):
            raise UserError(
                f"{name}: item {row} differs between two reads; leave out its random transforms"
            )
    return np.stack(rows)


def _item(items: Items, row: int, name: str) -> NDArray[np.uint8]:
    try:
        found = items[row]
    except Exception as error:  # code of the user
        raise UserError(f"{name}: item {row} raised {told(error)}") from None
    image = found[0] if isinstance(found, tuple | list) and len(found) else found
    first = isinstance(image, torch.Tensor)
    if first:
        image = image.detach().cpu().numpy()
    elif not isinstance(image, np.ndarray) and hasattr(image, "convert"):  # a picture of Pillow
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise UserError(f"{name}: item {row} is a {type(image).__name__}, not an image")
    pixels: NDArray[np.uint8] = _pixels(image[None], f"{name}: item {row}", first=first)[0]
    return pixels


def _require_equal(rows: Sequence[Any], shapes: Sequence[tuple[int, ...]], name: str) -> None:
    for row in range(1, len(rows)):
        if shapes[row] != shapes[0]:
            raise UserError(
                f"{name}: item {row} has the shape {shapes[row]}, item 0 {shapes[0]} (height, "
                "width, channels); resize the items to one shape"
            )


def _pixels(images: NDArray[Any], name: str, *, first: bool = False) -> NDArray[np.uint8]:
    """Return an array of images as uint8 with the channels last.

    Args:
        images: The array.
        name: What it is called in messages.
        first: Whether channels come first if both places could hold them, as in tensors.
    """
    if images.ndim == 3:
        images = images[..., None]
    places = [place for place in (1, 3) if images.ndim == 4 and images.shape[place] in _CHANNELS]
    if not places or min(images.shape) == 0:
        raise UserError(
            f"{name}: the shape {images.shape} is not one of images; give (n, height, width), (n, "
            "height, width, channels) or (n, channels, height, width) with 1 or 3 channels"
        )
    if (places[0] if first else places[-1]) == 1:
        images = np.moveaxis(images, 1, -1)
    return np.ascontiguousarray(_levels(images, name))


def _levels(images: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise UserError(f"{name}: of type {images.dtype}; give uint8, or floats in [0, 1]")
    if not (images.min() >= 0 and images.max() <= 1):
        raise UserError(
            f"{name}: values from {images.min():.4g} to {images.max():.4g}; give floats in [0, 1]"
        )
    levels: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return levels
