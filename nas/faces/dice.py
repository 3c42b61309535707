"""Random draws and colour palettes for scenes."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

from nas.faces.scene import Colour

T = TypeVar("T")


class Dice:
    """Random draws for one image; their order is fixed."""

    def __init__(self, seed: int, index: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))

    def between(self, low: float, high: float) -> float:
        """Draw uniformly from `[low, high)`."""
        return low + (high - low) * float(self._random.random())

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self._random.random() < probability)

    def around(self, mean: float, deviation: float, limit: float = 2.2) -> float:
        """Draw from a normal distribution, clipped at `limit` standard deviations."""
        drawn = float(self._random.standard_normal())
        return mean + deviation * min(max(drawn, -limit), limit)

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Draw one option, with equal weights or the given ones."""
        if weights is None:
            return options[int(self._random.random() * len(options))]
        cumulative = list(accumulate(weights))
        return options[bisect(cumulative, self.between(0.0, cumulative[-1]))]


def rgb(red: int, green: int, blue: int) -> Colour:
    """Return the linear colour of 8-bit display values with a display gamma of 2."""
    return (red / 255) ** 2, (green / 255) ** 2, (blue / 255) ** 2


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` mixed with a share of `second`, from 0 to 1."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def scaled(colour: Colour, factor: float) -> Colour:
    """Return the colour times `factor`, limited to 1."""
    red, green, blue = (min(channel * factor, 1.0) for channel in colour)
    return red, green, blue


SKIN = (
    rgb(246, 214, 194),
    rgb(236, 194, 166),
    rgb(222, 172, 138),
    rgb(204, 148, 112),
    rgb(176, 118, 84),
    rgb(136, 88, 60),
    rgb(98, 62, 44),
)
HAIR_DARK = (rgb(24, 19, 18), rgb(32, 24, 22), rgb(44, 31, 25))
HAIR_BROWN = (rgb(66, 44, 31), rgb(86, 56, 36), rgb(110, 72, 46), rgb(122, 62, 38))
HAIR_FAIR = (rgb(176, 136, 84), rgb(205, 168, 112), rgb(224, 194, 142))
HAIR_RED = (rgb(140, 66, 34), rgb(158, 84, 44))
IRIS_DARK = (rgb(62, 40, 26), rgb(84, 54, 32), rgb(44, 30, 24))
IRIS_LIGHT = (rgb(92, 128, 158), rgb(110, 140, 120), rgb(120, 104, 66), rgb(116, 136, 150))
FABRIC = (
    rgb(28, 30, 38), rgb(236, 234, 230), rgb(40, 58, 96), rgb(120, 36, 42), rgb(60, 84, 64),
    rgb(150, 148, 146), rgb(196, 168, 132), rgb(92, 66, 110), rgb(210, 110, 92), rgb(70, 130, 150),
    rgb(222, 190, 80), rgb(222, 170, 182),
)  # fmt: skip
SCENERY = (
    rgb(196, 200, 204), rgb(120, 140, 160), rgb(90, 82, 76), rgb(168, 148, 126), rgb(66, 78, 70),
    rgb(150, 88, 70), rgb(58, 62, 84), rgb(214, 202, 182), rgb(40, 38, 42), rgb(130, 156, 176),
)  # fmt: skip
