"""Drawing primitives: a canvas of linear light, smooth coverage, and noise textures.

Shapes are signed distances (negative inside) and become coverage over one pixel, which gives
anti-aliased edges without supersampling. All arithmetic is element by element, so the value of a
pixel does not depend on the batch in which it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.faces.scene import Colour

Plane = NDArray[np.floating[Any]]
"""An array of float32. NumPy's type stubs lose this type in arithmetic with Python numbers."""

TILE = 512  # width and height of the repeating textures
STRANDS, ALONG = 1024, 256  # across and along the strands


@dataclass(frozen=True)
class Canvas:
    """A rectangle of the image: `rgb` `(3, h, w)`, coordinates `x` `(1, w)` and `y` `(h, 1)`.

    Coordinates range from -1 to 1 over the whole image; y points down. `pixel` is the width of one
    pixel.
    """

    rgb: Plane
    x: Plane
    y: Plane
    pixel: float

    def crop(self, x: float, y: float, half_width: float, half_height: float) -> Canvas:
        """Return the part around `(x, y)`, at least 2 x 2 pixels; it shares the memory."""
        rows, columns = self.window(x, y, half_width, half_height)
        return Canvas(self.rgb[:, rows, columns], self.x[:, columns], self.y[rows], self.pixel)

    def window(
        self, x: float, y: float, half_width: float, half_height: float
    ) -> tuple[slice, slice]:
        """Return the rows and columns within the given distances of `(x, y)`."""
        return (
            _span(self.y[:, 0], y, half_height, self.pixel),
            _span(self.x[0], x, half_width, self.pixel),
        )

    def paint(self, alpha: Plane, colour: Colour | Plane) -> None:
        """Blend a colour, or a `(3, h, w)` picture, over the canvas with opacity `alpha`."""
        for plane, channel in zip(self.rgb, colour, strict=True):
            np.add(plane, alpha * (channel - plane), out=plane)

    def shade(self, amount: Plane, tint: Colour = (1.0, 1.0, 1.0)) -> None:
        """Darken by `amount` in [0, 1] times the weight of each channel in `tint`."""
        for plane, weight in zip(self.rgb, tint, strict=True):
            np.multiply(plane, 1 - amount * weight, out=plane)

    def cover(self, distance: Plane) -> Plane:
        """Return the coverage in [0, 1] of a signed distance, with an edge one pixel wide."""
        return clamp(0.5 - distance * (1 / self.pixel), 0, 1)


def _span(axis: Plane, centre: float, half: float, pixel: float) -> slice:
    first = int((centre - half - float(axis[0])) / pixel)
    last = int((centre + half - float(axis[0])) / pixel) + 2
    first = min(max(first, 0), max(len(axis) - 2, 0))
    return slice(first, max(min(last, len(axis)), first + 2))


def new_canvas(size: int) -> Canvas:
    """Return a black canvas of `size` x `size` pixels."""
    pixel = 2 / size
    axis = ((np.arange(size) + 0.5) * pixel - 1).astype(np.float32)
    return Canvas(np.zeros((3, size, size), np.float32), axis[None], axis[:, None], pixel)


def clamp(values: Plane, low: float, high: float) -> Plane:
    """Limit values to `[low, high]`; twice as fast as `np.clip` on small arrays."""
    limited: Plane = np.minimum(np.maximum(values, low), high)
    return limited


def smoothstep(values: Plane, low: float, high: float) -> Plane:
    """Interpolate smoothly from 0 at `low` to 1 at `high`; `high` can be below `low`."""
    t = clamp((values - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def bell(squared: Plane) -> Plane:
    """Return `exp(-squared)`: 1 at the centre, falling smoothly to 0."""
    return np.exp(-squared)


def grain(texture: Plane, shape: tuple[int, ...], seed: int) -> Plane:
    """Return a window of `shape` from a texture, at a position derived from `seed`."""
    height, width = shape
    top = (seed * 2654435761 >> 7) % max(texture.shape[0] - height, 1)
    left = (seed * 40503 >> 3) % max(texture.shape[1] - width, 1)
    if height > texture.shape[0] or width > texture.shape[1]:
        repeats = (-(-height // texture.shape[0]) + 1, -(-width // texture.shape[1]) + 1)
        texture = np.tile(texture, repeats)
    return texture[top : top + height, left : left + width]


def lookup(texture: Plane, row: Plane, column: Plane) -> Plane:
    """Return the values of a repeating texture at texel coordinates.

    Height and width of the texture are powers of two.
    """
    rows, columns = texture.shape
    index = (row.astype(np.int32) & (rows - 1)) * columns + (
        column.astype(np.int32) & (columns - 1)
    )
    texels: Plane = texture.ravel()[index]
    return texels


def clouds(canvas: Canvas, cells: int, seed: int) -> Plane:
    """Return smooth noise in [-1, 1] with about `cells` blobs across the image."""
    knots = grain(white(), (cells + 2, cells + 2), seed)
    x, y = (canvas.x[0] + 1) * (cells / 2), (canvas.y[:, 0] + 1) * (cells / 2)
    across = _blend(knots.T, x).T
    return clamp(_blend(across, y) * 0.6, -1, 1)


def _blend(knots: Plane, place: Plane) -> Plane:
    """Interpolate smoothly between the rows of `knots`."""
    low = np.clip(place.astype(np.int32), 0, len(knots) - 2)
    t = clamp(place - low, 0, 1).astype(np.float32)
    t = (t * t * (3 - 2 * t))[:, None]
    return knots[low] * (1 - t) + knots[low + 1] * t


@lru_cache(maxsize=1)
def white() -> Plane:
    """Return white noise of standard deviation 1, `(TILE, TILE)`."""
    return np.random.default_rng(11).standard_normal((TILE, TILE)).astype(np.float32)


@lru_cache(maxsize=4)
def fractal(smoothness: float) -> Plane:
    """Return repeating noise whose amplitude falls with frequency to the power of `smoothness`.

    Standard deviation 1, `(TILE, TILE)`.
    """
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.fftfreq(TILE)[None, :])
    frequency[0, 0] = 1
    shaped = np.fft.fft2(white()) / frequency**smoothness
    shaped[0, 0] = 0
    return _unit(np.fft.ifft2(shaped).real)


@lru_cache(maxsize=1)
def strands() -> Plane:
    """Return repeating noise that is smooth along its rows, like strands of hair.

    Standard deviation 1, `(STRANDS, ALONG)`.
    """
    noise = np.random.default_rng(12).standard_normal((STRANDS, ALONG))
    fine = _unit(_smooth(noise, 0.8, 24))
    clumps = _unit(_smooth(noise, 5, 40))
    return _unit(fine + 0.8 * clumps)


def _smooth(noise: NDArray[np.float64], across: float, along: float) -> NDArray[np.float64]:
    """Blur a repeating texture by Gaussians with the given standard deviations in texels."""
    rows, columns = (np.fft.fftfreq(length) for length in noise.shape)
    window = np.exp(-2 * np.pi**2 * ((rows[:, None] * across) ** 2 + (columns * along) ** 2))
    blurred: NDArray[np.float64] = np.fft.ifft2(np.fft.fft2(noise) * window).real
    return blurred


def _unit(noise: NDArray[np.float64]) -> Plane:
    unit: Plane = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return unit


def gaussian_blur(picture: Plane, deviation: float) -> Plane:
    """Blur a picture `(3, h, w)` by a Gaussian; the pixels at the edges are repeated outwards.

    `deviation` is the standard deviation in pixels.
    """
    radius = max(1, int(2.5 * deviation + 0.5))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        margin = [(0, 0), (0, 0), (0, 0)]
        margin[axis] = (radius, radius)
        padded = np.pad(picture, margin, mode="edge")
        length = picture.shape[axis]
        picture = np.zeros_like(picture)
        for offset, weight in enumerate(weights.tolist()):
            part = slice(offset, offset + length)
            picture += weight * (padded[:, part] if axis == 1 else padded[:, :, part])
    return picture
