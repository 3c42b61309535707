"""Decode pictures into the cache, and list those that cannot be read with the reasons."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.datasets.cache import (
    Entry,
    Images,
    Labels,
    Rows,
    build_together,
    cache_directory,
)
from nas.datasets.dataset import MINIMUM_IMAGES, ImageIndices, require_enough
from nas.datasets.decoding import DECODER_VERSION, Shape, quiet_decoders, reason
from nas.datasets.known_rows import KnownRows
from nas.datasets.sources import Source, States
from profiling.files import write_whole
from profiling.progress import Progress
from profiling.resources import logical_cpus
from search_spaces.errors import UserError
from search_spaces.sizes import sides, size_in_words

_LABELS = 3  # of an image in the cache: readable, grey, enlarged
_CHUNK = 64
"""Number of pictures that one thread decodes at a time."""
_SHOWN = 3
"""Number of unreadable files that a message names."""


@dataclass(frozen=True)
class ReadImages:
    """Decoded pictures.

    Attributes:
        images: uint8, `(count, channels, height, width)`.
        rows: Their row numbers in the source.
        skipped: Names of the unreadable pictures.
        unreadable: The file that lists these with reasons; None if there are none.
        grey: Whether every picture is grey.
        enlarged: Number of pictures that have fewer pixels than was asked for.
        digest: SHA-256 of the images.
    """

    images: Images
    rows: ImageIndices
    skipped: tuple[str, ...]
    unreadable: Path | None
    grey: bool
    enlarged: int
    digest: str


def read_images(
    source: Source,
    shape: Shape,
    order: ImageIndices | None = None,
    count: int | None = None,
    max_unreadable: float = 0.01,
    progress: Progress | None = None,
) -> ReadImages:
    """Decode pictures of a source at a shape, through the cache.

    The cache identifies a file by its path, length, modification time and permissions. A file that
    another cached set has at the same shape is not decoded again.

    Args:
        source: The pictures.
        shape: What they are converted to.
        order: All row numbers of the source in the wanted order; None takes that of the source.
        count: Number of pictures to take from the beginning of this order; None takes all.
            Different beginnings of one order share their cached images.
        max_unreadable: Largest share of unreadable pictures, which are skipped.
        progress: Called with (done, total) images.

    Raises:
        UserError: there are fewer than 10 pictures, or too many unreadable ones.
    """
    order = np.arange(len(source.names)) if order is None else order
    rows = order[:count]
    require_enough(len(rows), source.where)
    states = source.states()[order]
    entry = _entry(states, shape)
    known = KnownRows(entry, states)

    def fill(start: int, stop: int) -> Rows:
        return _decode(source, rows, slice(start, stop), {shape: known})[0]

    with quiet_decoders():
        images, labels = entry.load(
            len(rows), fill, threads=logical_cpus(), chunk=_CHUNK, progress=progress
        )
        readable = np.asarray(labels)[:, 0]
        skipped = np.sort(rows[~readable])
        known.remember()
        listed = _list_unreadable(entry, source, skipped, shape) if len(skipped) else None
    names = tuple(source.names[row] for row in skipped)
    if listed and len(names) > max_unreadable * len(rows):
        raise _too_many(source, names, len(rows), max_unreadable, listed)
    unread = f"{len(names)} unreadable ones, with reasons in {listed}" if listed else ""
    require_enough(int(readable.sum()), source.where, unread)
    if listed:
        entry, images = _readable_only(entry, images, labels)
    flags = np.asarray(labels)[readable]
    return ReadImages(
        images=images,
        rows=rows[readable],
        skipped=names,
        unreadable=listed,
        grey=bool(flags[:, 1].all()),
        enlarged=int(flags[:, 2].sum()),
        digest=entry.digest(images),
    )


def cache_at(
    source: Source,
    shapes: Sequence[Shape],
    order: ImageIndices,
    count: int | None = None,
    progress: Progress | None = None,
) -> ReadImages:
    """Decode pictures of a source into the cache at several shapes, with one decoding for all.

    Then `read_images` finds all that it needs at each shape, also in a cache that cannot be
    written. Shapes that are cached are not made again.

    Args:
        source: The pictures.
        shapes: What they are converted to.
        order: All row numbers of the source in the order of the studies that will read them.
        count: Number of pictures to take from the beginning of this order; None takes all.
        progress: Called with (done, total) images.

    Returns:
        The pictures at the first shape.

    Raises:
        UserError: there are fewer than 10 readable pictures, or the cache folder cannot hold them.
    """
    rows = order[:count]
    require_enough(len(rows), source.where)
    states = source.states()[order]
    entries = {shape: _entry(states, shape) for shape in dict.fromkeys(shapes)}
    known = {
        shape: KnownRows(entry, states)
        for shape, entry in entries.items()
        if not entry.holds(len(rows))
    }

    def fill(start: int, stop: int) -> Sequence[Rows]:
        return _decode(source, rows, slice(start, stop), known)

    with quiet_decoders():
        build_together(
            [entries[shape] for shape in known],
            len(rows), fill, threads=logical_cpus(), chunk=_CHUNK, progress=progress,
        )  # fmt: skip
    first, *_ = [read_images(source, shape, order, count, max_unreadable=1) for shape in entries]
    return first


def _entry(states: States, shape: Shape) -> Entry:
    """Return the cached images of pictures in an order, named by all that they depend on."""
    key = hashlib.sha256(states.tobytes()).hexdigest()[:16]
    kind = f"{shape.fit}{shape.bits}-v{DECODER_VERSION}"
    grey = "" if shape.channels == 3 else "-grey"
    stem = f"files-{key}-{size_in_words(shape.size)}px{grey}-{kind}"
    return Entry(stem=stem, size=shape.size, labels=_LABELS, channels=shape.channels)


def _decode(
    source: Source, rows: ImageIndices, part: slice, known: Mapping[Shape, KnownRows]
) -> list[Rows]:
    """Decode pictures at each shape; the labels of one are whether it is readable, grey, enlarged.

    Pictures that are known at a shape are copied.
    """
    wanted, found = rows[part], list[tuple[Shape, Images, Labels, Labels]]()
    for shape, rows_of in known.items():
        images = np.zeros((len(wanted), shape.channels, *sides(shape.size)), np.uint8)
        labels = np.zeros((len(wanted), _LABELS), np.bool_)
        found.append((shape, images, labels, rows_of.copy_to(images, labels, part.start)))
    for place, row in enumerate(wanted):
        missing = [one for one in found if not one[-1][place]]
        try:
            pictures = source.pictures(int(row), [shape for shape, *_ in missing])
        except Exception:  # decoders raise any type for a damaged file; these are listed later
            continue
        for (_, images, labels, _), picture in zip(missing, pictures, strict=True):
            images[place] = picture.pixels
            labels[place] = True, picture.grey, picture.enlarged
    return [(images, labels) for _, images, labels, _ in found]


def _list_unreadable(entry: Entry, source: Source, rows: ImageIndices, shape: Shape) -> Path:
    """Write names and reasons of unreadable pictures beside the cached images, unless it is done.

    They are decoded a second time for it, because another process may have decoded them first.
    """
    path = cache_directory() / "datasets" / f"{entry.stem}-{len(rows)}.unreadable.txt"
    if not path.is_file():
        lines = [f"{printable(source.names[row])}: {_why(source, int(row), shape)}" for row in rows]
        try:
            write_whole(path, "".join(f"{line}\n" for line in lines).encode())
        except OSError as error:
            raise UserError(
                f"{path}: the list of unreadable images cannot be written "
                f"({error.strerror or error}); set NAS_CACHE_DIR to a writable folder"
            ) from None
    return path


def _why(source: Source, row: int, shape: Shape) -> str:
    try:
        source.pictures(row, [shape])
    except Exception as error:
        return reason(error)
    return "could be read the second time"


def _too_many(
    source: Source, names: Sequence[str], count: int, most: float, listed: Path
) -> UserError:
    share = math.ceil(100 * len(names) / count) / 100
    enough = count - len(names) >= MINIMUM_IMAGES and share < 1
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    why = f" (first: {lines[0].removeprefix(printable(names[0]) + ': ')})" if lines else ""
    go_on = f", or go on without them: --set data.max_unreadable={share}" if enough else ""
    return UserError(
        f"{source.where}: {len(names)} of {count} images cannot be read{why}, which is more than "
        f"{100 * most:g}%; repair or remove {first_of(names)}{go_on}. All with reasons: {listed}"
    )


def first_of(names: Sequence[str]) -> str:
    """Return the first few names, with escapes for control characters and undecodable bytes."""
    return ", ".join(map(printable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def printable(name: str) -> str:
    """Return a file name with escapes for control characters and undecodable bytes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in name)


def _readable_only(entry: Entry, images: Images, labels: Labels) -> tuple[Entry, Images]:
    """Return a second entry without the unreadable rows, whose images are contiguous."""
    rows = np.flatnonzero(labels[:, 0])

    def fill(start: int, stop: int) -> Rows:
        return images[rows[start:stop]], labels[rows[start:stop]]

    compact = replace(entry, stem=f"{entry.stem}-readable")
    return compact, compact.load(len(rows), fill, threads=1, chunk=512)[0]
