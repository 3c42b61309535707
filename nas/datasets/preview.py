"""A contact sheet of a data set's images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.datasets.choosing import random_order
from nas.datasets.dataset import MINIMUM_IMAGES, DataConfig
from nas.datasets.files import Choice, chosen_in_words, fit_in_words, planned_split, shape_of
from nas.datasets.reading import read_images
from profiling.progress import Progress
from search_spaces.sizes import Size

if TYPE_CHECKING:
    from PIL import Image

GAP = 2  # pixels between images


def contact_sheet(images: NDArray[np.uint8], rows: int, columns: int, seed: int = 0) -> Image.Image:
    """Return one picture of `rows` x `columns` images, drawn at random without repetition.

    Cells are white if there are too few images.

    Args:
        images: uint8, `(count, 1 or 3, height, width)`.
        rows: Rows of the sheet.
        columns: Columns of the sheet.
        seed: Seed of the draw.
    """
    from PIL import Image

    height, width = images.shape[-2:]
    shape = rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3
    sheet = np.full(shape, 255, np.uint8)
    drawn = np.random.default_rng(seed).permutation(len(images))[: rows * columns]
    for cell, index in enumerate(drawn):
        row, column = divmod(cell, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[top : top + height, left : left + width] = images[index].transpose(1, 2, 0)
    return Image.fromarray(sheet)


def preview_images(
    choice: Choice,
    config: DataConfig,
    image_size: Size,
    count: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.uint8], list[str]]:
    """Decode a random sample of the images that a study would use, and no others.

    Returns:
        The images, uint8 `(count or fewer, 3, height, width)`, and sentences about them.
    """
    shown = min(max(count, MINIMUM_IMAGES), choice.count)
    used = choice.order[: choice.count]
    order = used[random_order([choice.classes[row] for row in used], seed)]
    sample = replace(choice, order=order, count=shown)
    shape = shape_of(sample, config, image_size, 3)
    read = read_images(sample.source, shape, order, shown, 0.5, progress)
    split = planned_split(choice, used, config)
    return np.asarray(read.images), [chosen_in_words(choice, used), fit_in_words(shape), split]
