"""What a folder of images holds, from the headers of its files: nothing is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nas.datasets.dataset import DataConfig
from nas.datasets.decoding import Shape, opened, quiet_decoders, reason
from nas.datasets.files import Choice, chosen_in_words, fit_in_words
from nas.datasets.listing import list_pictures
from nas.datasets.sources import Files
from search_spaces.sizes import Size, area, sides, size_in_words


@dataclass(frozen=True)
class _Header:
    """Format, mode, width and height of a file; or why they cannot be read."""

    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    unreadable: str = ""


def inspect(choice: Choice, config: DataConfig, image_size: Size) -> list[tuple[str, str]]:
    """Return facts about the pictures of a choice as (label, text).

    Args:
        choice: The pictures.
        config: How a study would use them.
        image_size: Size in pixels that a study would use.
    """
    used, pixels = choice.order[: choice.count], size_in_words(image_size)
    facts = [
        ("a study uses", chosen_in_words(choice, used)),
        ("shape", fit_in_words(Shape(image_size, fit=config.fitting))),
        ("split", choice.parts[1] if choice.parts else "random, or as data.split says"),
        ("cache", f"{3 * area(image_size) * len(used) / 1e6:,.1f} MB at {pixels} px"),
    ]
    if choice.parts:
        facts.append(("parts", _counts(choice.parts[0])))
    if not isinstance(choice.source, Files):
        return facts
    with quiet_decoders():
        headers = [_header(choice.source, name) for name in choice.source.names]
    ignored = list_pictures(choice.source.root).ignored
    others = ", ".join(f"{count:,} {why}" for why, count in ignored.items())
    return [*facts, *_of_headers(headers, image_size), ("ignored files", others or "none")]


def _header(source: Files, name: str) -> _Header:
    try:
        with opened(source.root / name) as image:
            return _Header(str(image.format), image.mode, *image.size)
    except Exception as error:  # decoders raise any type for a damaged file
        return _Header(unreadable=reason(error))


def _of_headers(headers: list[_Header], image_size: Size) -> list[tuple[str, str]]:
    readable = [one for one in headers if not one.unreadable]
    unreadable = [one.unreadable for one in headers if one.unreadable]
    if not readable:
        return [("unreadable headers", _counts(unreadable))]
    widths, heights = np.array([(one.width, one.height) for one in readable]).T
    height, width = sides(image_size)
    small = float(((widths < width) | (heights < height)).mean())
    ratio = np.percentile(widths / heights, [0, 50, 100])
    return [
        ("formats", _counts(one.format for one in readable)),
        ("modes", _counts(one.mode for one in readable)),
        ("sizes", f"{widths.min()} to {widths.max()} x {heights.min()} to {heights.max()} px"),
        ("width / height", f"{ratio[0]:.2f} to {ratio[2]:.2f}, median {ratio[1]:.2f}"),
        ("enlarged", f"{small:.1%} are smaller than {size_in_words(image_size)} px"),
        ("unreadable headers", _counts(unreadable) or "none"),
    ]


def _counts(texts: Iterable[str]) -> str:
    return ", ".join(f"{count:,} {text}" for text, count in Counter(texts).most_common(8))
