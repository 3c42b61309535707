"""What a folder, an archive or an array of images holds, and what a study would do with it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from nas.datasets.choosing import random_order
from nas.datasets.dataset import DataConfig
from nas.datasets.decoding import Header, Shape, quiet_decoders, reason
from nas.datasets.duplicates import duplicates_in_words
from nas.datasets.files import (
    Choice,
    chosen_in_words,
    fit_in_words,
    load_choice,
    planned_split,
    shape_of,
)
from nas.datasets.listing import list_pictures
from nas.datasets.sources import Files
from profiling.progress import Progress
from profiling.resources import logical_cpus
from search_spaces.errors import UserError
from search_spaces.sizes import Size, area, sides, size_in_words

_SAMPLE = 128
"""Number of images that are decoded to measure the speed."""
_PATIENCE_S = 60.0
"""Images are decoded for duplicates if that takes no longer."""
_CHUNK = 256

Facts = list[tuple[str, str]]
"""Pairs of a label and a text."""


def inspect(
    choice: Choice, config: DataConfig, image_size: Size, progress: Progress | None = None
) -> tuple[Facts, UserError | None]:
    """Return facts about the pictures of a choice, and the error that a study would end with.

    The headers of all files are read, and some images are decoded to measure the speed. All that a
    study would use are decoded into its cache and compared if that takes a minute at most.

    Args:
        choice: The pictures.
        config: How a study would use them.
        image_size: Size in pixels that a study would use.
        progress: Called with (done, total) headers, then images.
    """
    with quiet_decoders():
        facts = _of_headers(_headers(choice, progress), image_size)
        shape = shape_of(choice, config, image_size, 3)
        each_s = _seconds_each(choice, shape)
    if isinstance(choice.source, Files):
        ignored = list_pictures(choice.source.root).ignored
        listed = ", ".join(f"{count:,} {why}" for why, count in ignored.items())
        facts.append(("ignored files", listed or "none"))
    rows, pixels = choice.order[: choice.count], size_in_words(image_size)
    size_mb = 3 * area(image_size) * len(rows) / 1e6
    left_s = each_s * len(rows)
    duplicates, refusal = _duplicates(choice, config, image_size, left_s, progress)
    return [
        *facts,
        ("a study uses", chosen_in_words(choice, rows)),
        ("shape", fit_in_words(shape)),
        ("split", planned_split(choice, rows, config).removeprefix("split ")),
        ("decoding", f"{1e3 * each_s:.2g} ms per image, about {_duration(left_s)} in all"),
        ("cache", f"{size_mb:,.1f} MB at {pixels} px"),
        *duplicates,
    ], refusal


def _duplicates(
    choice: Choice,
    config: DataConfig,
    image_size: Size,
    left_s: float,
    progress: Progress | None,
) -> tuple[Facts, UserError | None]:
    """Return the duplicates across parts, what a study would print, and what it would refuse."""
    if left_s > _PATIENCE_S:
        skipped = "not counted: decoding takes more than a minute; a study does"
        return [("duplicates", skipped)], None
    try:
        dataset = load_choice(choice, config, image_size, 3, progress)
    except UserError as error:
        return [], error
    words = duplicates_in_words(dataset) or ["none across parts"]
    return [("duplicates", words[0]), *(("note", text) for text in dataset.about[3:])], None


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def _seconds_each(choice: Choice, shape: Shape) -> float:
    """Measure decoding on a random sample, in as many threads as a study uses."""
    rows = choice.order[: choice.count]
    sample = rows[random_order([""] * len(rows), seed=1)[:_SAMPLE]]

    def read(row: np.int64) -> None:
        with suppress(Exception):  # decoders raise any type for a damaged file
            choice.source.pictures(int(row), [shape])

    with ThreadPoolExecutor(logical_cpus()) as pool:
        list(pool.map(read, sample[:4]))  # imports the decoders
        start = time.perf_counter()
        list(pool.map(read, sample))
        return (time.perf_counter() - start) / len(sample)


def _headers(choice: Choice, progress: Progress | None) -> list[Header | str]:
    """Return the header of each picture, or why it cannot be read."""

    def read(row: int) -> Header | str:
        try:
            return choice.source.header(row)
        except Exception as error:  # decoders raise any type for a damaged file
            return reason(error)

    found, count = list[Header | str](), len(choice.source.names)
    for start in range(0, count, _CHUNK):
        found += map(read, range(start, min(start + _CHUNK, count)))
        if progress is not None:
            progress(len(found), count)
    return found


def _of_headers(headers: list[Header | str], image_size: Size) -> Facts:
    readable = [one for one in headers if isinstance(one, Header)]
    unreadable = _counts(one for one in headers if isinstance(one, str)) or "none"
    if not readable:
        return [("unreadable headers", unreadable)]
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
        ("unreadable headers", unreadable),
    ]


def _counts(texts: Iterable[str]) -> str:
    return ", ".join(f"{count:,} {text}" for text, count in Counter(texts).most_common(8))
