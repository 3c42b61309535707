"""Height and width of images and of feature maps.

A size is one integer where height and width are equal, and the pair (height, width) otherwise. So
every size has one spelling, and a square has that of earlier versions.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter

Size = int | tuple[int, int]
"""Side of a square, or height and width that differ."""

_SIDE = TypeAdapter[int](Annotated[int, Field(ge=4, le=2048)], config=ConfigDict(strict=True))
_TEXT = re.compile(r"([0-9]{1,9})(?:x([0-9]{1,9}))?")


def size_of(height: int, width: int) -> Size:
    """Return height and width as a size."""
    return height if height == width else (height, width)


def sides(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def area(size: Size) -> int:
    """Return height x width."""
    height, width = sides(size)
    return height * width


@cache
def enlarged(size: Size, factor: int) -> Size:
    """Return the size of `factor` times the height and the width."""
    return size_of(*(factor * side for side in sides(size)))


@cache
def reduced(size: Size, factor: int) -> Size:
    """Return the size whose height and width are 1 / `factor` of those of `size`, rounded up."""
    return size_of(*(-(-side // factor) for side in sides(size)))


def size_in_words(size: Size) -> str:
    """Return `144`, or `144x96` for a height of 144 and a width of 96."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


def parse_size(text: str) -> Size | None:
    """Return the size that `size_in_words` wrote, of any sides; None for other text."""
    found = _TEXT.fullmatch(text)
    return size_of(int(found[1]), int(found[2] or found[1])) if found else None


def _checked(value: Any) -> Size:
    if not isinstance(value, list | tuple):
        return _SIDE.validate_python(value)
    if len(value) != 2:
        raise ValueError(f"expected one side or [height, width], got {len(value)} values")
    height, width = (_SIDE.validate_python(side) for side in value)
    return size_of(height, width)


def _plain(size: Size) -> int | list[int]:
    return size if isinstance(size, int) else list(size)


ImageSize = Annotated[Size, PlainValidator(_checked), PlainSerializer(_plain, return_type=Any)]
"""Height and width of images in pixels, 4 to 2048 each, as JSON has them."""
