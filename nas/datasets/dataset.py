"""The configuration of a data set and the loaded data set."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces.errors import UserError
from search_spaces.numbers import Count, Seed

ImageIndices = NDArray[np.int64]
"""Positions of images in a data set, `(n,)`."""

MINIMUM_IMAGES = 10  # with fewer, the 70/15/15 split leaves a part empty


class DataConfig(BaseModel):
    """Configuration of a data set.

    Attributes:
        kind: Key of `nas.datasets.DATASETS`: `faces` are rendered, `celeba` and `folder` are read
            from `path`.
        path: Folder of the images; only for `celeba` and `folder`.
        count: Number of images; None means 20,000 for `faces`, at most the first 20,000 by file
            name for `celeba` and all of them for `folder`.
        seed: Seed of the rendered faces; other kinds ignore it.
        split_seed: Seed of the 70/15/15 split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["faces", "celeba", "folder"] = "faces"
    path: Path | None = None
    count: Annotated[Count, Field(ge=MINIMUM_IMAGES)] | None = None
    seed: Seed = 0
    split_seed: Seed = 42

    @model_validator(mode="after")
    def _path_fits_kind(self) -> Self:
        if self.kind == "faces" and self.path is not None:
            raise ValueError(
                f"path: {str(self.path)!r} is given, but kind 'faces' reads no folder; "
                "remove path, or set kind to 'celeba' or 'folder'"
            )
        if self.kind != "faces" and self.path is None:
            raise ValueError(f"path: missing; kind {self.kind!r} needs the folder of its images")
        return self


@dataclass(frozen=True)
class ImageDataset:
    """Memory-mapped images with their attributes and their split.

    Attributes:
        name: Kind of the data set.
        images: `(count, 3, size, size)` uint8, C-contiguous, memory-mapped.
        attribute_names: Names of the binary attributes; empty if there are none.
        attributes: `(count, len(attribute_names))` bool, or None.
        train: Indices of the training part (70 %).
        validation: Indices of the validation part (15 %).
        test: Indices of the test part (the rest).
        skipped: Names of the files that could not be read.
        fingerprint: Hexadecimal digest; equal for equal pixels and splits.
    """

    name: str
    images: NDArray[np.uint8]
    attribute_names: tuple[str, ...]
    attributes: NDArray[np.bool_] | None
    train: ImageIndices
    validation: ImageIndices
    test: ImageIndices
    skipped: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.images)


def split_lengths(count: int) -> tuple[int, int, int]:
    """Return how many of `count` images are for training (70 %), validation (15 %) and test."""
    train, validation = count * 70 // 100, count * 15 // 100
    return train, validation, count - train - validation


def split_indices(count: int, seed: int) -> tuple[ImageIndices, ImageIndices, ImageIndices]:
    """Split `range(count)` at random into 70 % training, 15 % validation and the rest test.

    The paper's protocol: `random_split` with its own generator, so that 20,000 images and seed 42
    give its 14,000 / 3,000 / 3,000. The global random state is not
    changed.
    """
    import torch
    from torch.utils.data import random_split

    lengths = split_lengths(count)
    generator = torch.Generator().manual_seed(seed)
    rows: Any = range(count)  # a sequence is all that random_split needs
    parts: list[Any] = random_split(rows, lengths, generator=generator)
    first, second, third = (np.asarray(part.indices, dtype=np.int64) for part in parts)
    return first, second, third


def fingerprint_of(**inputs: object) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of inputs that JSON can encode."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def require_enough(count: int, where: str) -> None:
    """Check that there are enough images for a split.

    Raises:
        UserError: there are fewer than `MINIMUM_IMAGES`.
    """
    if count < MINIMUM_IMAGES:
        raise UserError(
            f"{where}: {count} usable images, but at least {MINIMUM_IMAGES} are needed; add images "
            "or set path to another folder"
        )
