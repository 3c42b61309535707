"""A data set: a function that returns the same images at each call."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stripes() -> NDArray[np.uint8]:
    """Return 60 images of coloured stripes, `(60, 32, 32, 3)`."""
    rng = np.random.default_rng(0)
    places = np.arange(32)
    images = np.zeros((60, 32, 32, 3))
    for image in images:
        angle, width = rng.uniform(0, np.pi), rng.uniform(3, 9)
        across = np.add.outer(np.sin(angle) * places, np.cos(angle) * places)
        image[:] = (np.sin(2 * np.pi * across / width)[..., None] + 1) / 2 * rng.uniform(0, 1, 3)
    return np.rint(255 * images).astype(np.uint8)
