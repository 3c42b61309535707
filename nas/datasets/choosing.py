"""Choose a subset of the pictures at random, and divide the chosen ones into three parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.datasets.dataset import ImageIndices, split_indices, split_lengths
from search_spaces.errors import UserError

PARTS = ("train", "validation", "test")
_LISTED = 8
"""Number of classes that a sentence lists."""


@dataclass(frozen=True)
class Split:
    """Three parts of a data set.

    Attributes:
        train: Row numbers of the training part.
        validation: Row numbers of the validation part.
        test: Row numbers of the test part.
        words: How the parts were made.
        paper: Whether number of images and seed say all about the parts.
    """

    train: ImageIndices
    validation: ImageIndices
    test: ImageIndices
    words: str
    paper: bool = False


def random_order(strata: Sequence[Hashable], seed: int) -> ImageIndices:
    """Return a random order of rows, any beginning of which is a stratified sample.

    The numbers of rows of two strata in the first n rows are to each other as those in all rows,
    rounded up or down (systematic sampling with a random start).

    Args:
        strata: The stratum of each row.
        seed: Seed of the random generator.
    """
    generator = np.random.default_rng(seed)
    rows = defaultdict[Hashable, list[int]](list)
    for row, stratum in enumerate(strata):
        rows[stratum].append(row)
    keys = np.empty(len(strata))
    for members in rows.values():
        places = np.arange(len(members)) + generator.random()
        keys[generator.permutation(members)] = places / len(members)
    return np.argsort(keys, kind="stable")


def in_words(used: int, found: int, classes: Sequence[str], of: Sequence[str], how: str) -> str:
    """Return `400 of 4,317 images (at random): daisy 71 of 764, ...`.

    Args:
        used: Number of images that are used.
        found: Number of images that were found.
        classes: Classes of the images that are used.
        of: Classes of the images that were found.
        how: How they were chosen.
    """
    text = f"{used:,} of {found:,} images" + (f" ({how})" if used < found else "")
    have, total = Counter(classes), Counter(of)
    if len(total) < 2:
        return text
    names = sorted(total, key=lambda name: (-total[name], name))
    listed = [f"{name or 'no folder'} {have[name]:,} of {total[name]:,}" for name in names]
    more = [f"and {len(listed) - _LISTED} more classes"] if len(listed) > _LISTED else []
    return f"{text}: " + ", ".join([*listed[:_LISTED], *more])


def random_split(count: int, seed: int) -> Split:
    """Return the paper's split: 70 % training, 15 % validation, the rest test, at random."""
    return Split(*split_indices(count, seed), f"split at random, seed {seed}", paper=True)


def split_by_part(parts: Sequence[str], seed: int, by: str) -> Split:
    """Return the split that folders or a partition state.

    A part that is not stated is drawn at random from the training part: 15 % of all images.

    Args:
        parts: The part of each row, by the names of `PARTS`.
        seed: Seed of the random draw.
        by: What states the parts, for the words.

    Raises:
        UserError: a part has no images.
    """
    rows = {part: np.flatnonzero([one == part for one in parts]) for part in PARTS}
    drawn = [part for part in PARTS[1:] if not len(rows[part])]
    for part in drawn:
        order = np.random.default_rng(seed).permutation(rows["train"])
        count = split_lengths(len(parts))[1]
        rows[part], rows["train"] = np.sort(order[:count]), np.sort(order[count:])
    for part in PARTS:
        if not len(rows[part]):
            raise UserError(f"data.split: no image is left for {part}; use more images")
    rest = f"; {' and '.join(drawn)} drawn from train at random (seed {seed})" if drawn else ""
    return Split(rows["train"], rows["validation"], rows["test"], f"split by {by}{rest}")


def split_by_group(groups: Sequence[str], seed: int, by: str) -> Split:
    """Return a split with every group in one part, as near to 70 : 15 : 15 as groups allow.

    Groups are taken in random order; each goes to the part that lacks the largest share of its
    images.

    Args:
        groups: The group of each row, as a person's name.
        seed: Seed of the order.
        by: What states the groups, for the words.

    Raises:
        UserError: there are fewer than three groups.
    """
    sizes = Counter(groups)
    if len(sizes) < 3:
        raise UserError(f"data.group: {len(sizes)} groups by {by}; at least 3 are needed")
    wanted = dict(zip(PARTS, split_lengths(len(groups)), strict=True))
    given, placed = Counter[str](), {}
    names = sorted(sizes)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    for number, group in enumerate(order):
        empty = [part for part in PARTS if not given[part]]
        left = len(order) - number
        parts = empty if len(empty) >= left else PARTS
        part = max(parts, key=lambda one: (wanted[one] - given[one]) / wanted[one])
        placed[group] = part
        given[part] += sizes[group]
    found = split_by_part([placed[group] for group in groups], seed, by)
    words = f"split by {by}: {len(sizes):,} groups, each in one part"
    return Split(found.train, found.validation, found.test, words)
