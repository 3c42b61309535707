"""The configuration of a data set and the loaded data set."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nas.datasets.decoding import Fit
from nas.own.imports import imported
from search_spaces.errors import UserError, nearest
from search_spaces.numbers import Count, Number, Seed

ImageIndices = NDArray[np.int64]
"""Positions of images in a data set, `(n,)`."""

Kind = Literal["faces", "celeba", "folder"]
"""The kinds of data sets: the keys of `nas.datasets.DATASETS`."""

MINIMUM_IMAGES = 10  # with fewer, the 70/15/15 split leaves a part empty
_NEWER = (
    *("split", "group", "group_column", "labels", "duplicates", "fit", "grey_bits"),
    "max_unreadable",
)


def _absolute(path: Path) -> Path:
    """Return a path that means the same from any working directory."""
    return path if str(path).startswith("~") else path.absolute()


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from None
    return text


def _known_kind(kind: str) -> str:
    known = get_args(Kind)
    if kind in known:
        return kind
    if ":" not in kind:
        raise ValueError(
            f"not one of {', '.join(known)}{nearest(kind, known)}, nor an import string such as "
            "mypkg.data:mine"
        )
    imported(kind)  # a `UserError` is a `ValueError`
    return kind


class DataConfig(BaseModel):
    """Configuration of a data set.

    Attributes:
        kind: Key of `nas.datasets.DATASETS`: `faces` are rendered, `celeba` and `folder` are read
            from `path`. Or the import string of a data set of one's own (`nas.datasets.own`).
        path: Folder of the images, an archive of it, or an array file; only for `celeba` and
            `folder`. It is made absolute.
        count: Number of images; None means 20,000 for `faces`, at most the first 20,000 by file
            name for `celeba` and all of them for `folder`, of which fewer are a random sample.
        seed: Seed of the rendered faces and of the random sample.
        split: `random`; `folders` for `train/`, `val/` and `test/`; `official` for CelebA's own
            partition. None means folders where there are such, else random.
        split_seed: Seed of a random split, which is 70/15/15.
        group: Regular expression on the names of images. Images with the same first group of the
            expression (or the same match) are in one part.
        group_column: Column of `labels` that does the same.
        labels: CSV file whose first column names the images. The others are attributes.
        duplicates: `keep`, or `drop` images from validation and test that another part has too.
        fit: How an image gets the proportions of the image size: `squash`, `crop` (its centre) or
            `pad` (white borders). None means squash for `celeba` and crop for `folder`.
        grey_bits: Range of greys of more than 8 bits, if their files do not state it. None means
            the smallest that holds the levels found.
        max_unreadable: Largest share of unreadable files, which are skipped and listed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[str, AfterValidator(_known_kind)] = "faces"
    path: Annotated[Path, AfterValidator(_absolute)] | None = None
    count: Annotated[Count, Field(ge=MINIMUM_IMAGES)] | None = None
    seed: Seed = 0
    split: Literal["random", "folders", "official"] | None = None
    split_seed: Seed = 42
    group: Annotated[str, AfterValidator(_is_pattern)] | None = None
    group_column: str | None = None
    labels: Annotated[Path, AfterValidator(_absolute)] | None = None
    duplicates: Literal["keep", "drop"] = "keep"
    fit: Fit | None = None
    grey_bits: Annotated[Count, Field(ge=8, le=16)] | None = None
    max_unreadable: Annotated[Number, Field(ge=0, lt=1)] = 0.01

    @model_validator(mode="after")
    def _path_fits_kind(self) -> Self:
        if self.kind == "faces" and self.path is not None:
            raise ValueError(
                f"path: {str(self.path)!r} is given, but kind 'faces' reads no folder; "
                "remove path, or set kind to 'celeba' or 'folder'"
            )
        if self.kind not in ("faces", *self._own) and self.path is None:
            raise ValueError(f"path: missing; kind {self.kind!r} needs the folder of its images")
        return self

    @model_validator(mode="after")
    def _split_fits_kind(self) -> Self:
        allowed = {"celeba": "official", "folder": "folders"}.get(self.kind)
        if self.split not in (None, "random", allowed):
            raise ValueError(f"split: {self.split!r} does not go with kind {self.kind!r}")
        for name in ("group", "group_column", "labels"):
            if getattr(self, name) is not None and self.kind != "folder":
                raise ValueError(f"{name}: goes with kind 'folder' only")
        if self.group_column is not None and self.labels is None:
            raise ValueError("group_column: needs labels, the CSV file that has the column")
        ways = (self.split, self.group, self.group_column)
        if len([way for way in ways if way is not None]) > 1:
            raise ValueError("give only one of split, group and group_column")
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out settings that earlier versions did not have, where they have no effect.

        So a configuration without them equals what an earlier version stored. `fit` of a folder
        is always named: earlier versions squashed.
        """
        found: dict[str, Any] = dump(self)
        defaults = {name: type(self).model_fields[name].default for name in _NEWER}
        kept = {k: v for k, v in found.items() if k not in defaults or v != defaults[k]}
        return {**kept, "fit": self.fitting} if self.kind == "folder" else kept

    @property
    def fitting(self) -> Fit:
        """How an image gets the proportions of the image size."""
        return self.fit or ("crop" if self.kind in ("folder", *self._own) else "squash")

    @property
    def _own(self) -> tuple[str, ...]:
        """The kind, if it is an import string."""
        return (self.kind,) if ":" in self.kind else ()


@dataclass(frozen=True)
class ImageDataset:
    """Memory-mapped images with their attributes and their split.

    Attributes:
        name: Kind of the data set.
        images: `(count, channels, height, width)` uint8, C-contiguous, memory-mapped.
        attribute_names: Names of the binary attributes; empty if there are none.
        attributes: `(count, len(attribute_names))` bool, or None.
        train: Indices of the training part (70 %).
        validation: Indices of the validation part (15 %).
        test: Indices of the test part (the rest).
        skipped: Names of the files that could not be read.
        fingerprint: Hexadecimal digest; equal for equal pixels and splits.
        found: Number of images that there are, of which `images` may be a sample; 0 if unknown.
        digest: SHA-256 of the images; empty for rendered ones.
        unreadable: The file that lists the skipped files with reasons; None if there are none.
        about: Sentences about the choice, the shape and the split of the images.
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
    found: int = 0
    digest: str = ""
    unreadable: Path | None = None
    about: tuple[str, ...] = ()

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


def require_enough(count: int, where: str, instead: str = "") -> None:
    """Check that there are enough images for a split.

    Args:
        count: Number of images.
        where: Their folder.
        instead: What else is there, for the message.

    Raises:
        UserError: there are fewer than `MINIMUM_IMAGES`.
    """
    if count < MINIMUM_IMAGES:
        there = f" (it has {instead})" if instead else ""
        raise UserError(
            f"{where}: {count} usable images, but at least {MINIMUM_IMAGES} are needed{there}; add "
            "images or set path to another folder"
        )
