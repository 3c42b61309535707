"""Images that need no rendering."""

from __future__ import annotations

import numpy as np

from nas.datasets import ImageDataset
from search_spaces.sizes import Size, sides


def noise(count: int, size: Size) -> ImageDataset:
    """Noise with three attributes: of every second image, of every third, and of the first."""
    rng = np.random.default_rng(0)
    places = np.arange(count)
    train, validation = int(0.7 * count), int(0.15 * count)
    return ImageDataset(
        name="noise",
        images=rng.integers(0, 256, size=(count, 3, *sides(size)), dtype=np.uint8),
        attribute_names=("Half", "Third", "Rare"),
        attributes=np.stack([places % 2 == 0, places % 3 == 0, places == 0], axis=1),
        train=places[:train],
        validation=places[train : train + validation],
        test=places[train + validation :],
        skipped=(),
        fingerprint="0123456789abcdef",
    )
