"""A contact sheet of a data set's images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nas.datasets.dataset import ImageDataset

if TYPE_CHECKING:
    from PIL import Image

GAP = 2  # pixels between images


def contact_sheet(dataset: ImageDataset, rows: int, columns: int, seed: int = 0) -> Image.Image:
    """Return one picture of `rows` x `columns` images, drawn at random without repetition.

    Cells are white if the data set has too few images.
    """
    from PIL import Image

    side = dataset.images.shape[-1]
    sheet = np.full((rows * (side + GAP) + GAP, columns * (side + GAP) + GAP, 3), 255, np.uint8)
    drawn = np.random.default_rng(seed).permutation(len(dataset))[: rows * columns]
    for cell, index in enumerate(drawn):
        top, left = (GAP + place * (side + GAP) for place in divmod(cell, columns))
        sheet[top : top + side, left : left + side] = dataset.images[index].transpose(1, 2, 0)
    return Image.fromarray(sheet)
