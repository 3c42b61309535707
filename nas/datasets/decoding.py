"""Decode one picture: formats, orientation, greys of many bits, transparency, shape and size.

Only the decoders of `FORMATS` are used, whatever a file is called: none of them starts another
program, as that of EPS does.
"""

from __future__ import annotations

import ctypes
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from search_spaces.sizes import Size, sides

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that may be used; those that a build of Pillow lacks are left out."""
LARGEST_PIXELS = 178_000_000
"""Largest image that is decoded, in pixels. Its three channels take 0.5 GB."""
DECODER_VERSION = 3
"""Part of the cache's key: increase it when the same file gives other pixels."""
BITS = (8, 10, 12, 14, 16)
"""Possible ranges of grey levels in bits."""
_BITS_PER_SAMPLE = 258  # the TIFF tag

Fit = Literal["squash", "crop", "pad"]
"""How a picture gets its shape: without its proportions, its centre, or with white borders."""


class UnreadableError(ValueError):
    """A file that is not decoded; the message is the reason."""


@dataclass(frozen=True)
class Shape:
    """What every picture of a data set is converted to.

    Attributes:
        size: Size in pixels.
        channels: 3 for RGB, 1 for grey.
        fit: How a picture gets the proportions of `size`.
        bits: Range of greys of more than 8 bits whose file does not state it; None takes the
            smallest of `BITS` that holds the levels of each picture.
    """

    size: Size
    channels: int = 3
    fit: Fit = "squash"
    bits: int | None = 16


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8, `(channels, height, width)`.
        grey: Whether its three channels are equal.
        enlarged: Whether it has fewer pixels than `size` in width or height.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    enlarged: bool


@dataclass(frozen=True)
class Header:
    """What is known of a picture without decoding it.

    Attributes:
        format: Pillow's name of the format.
        mode: Pillow's name of the pixels' type.
        width: Width in pixels.
        height: Height in pixels.
    """

    format: str
    mode: str
    width: int
    height: int


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence the warnings and log messages of Pillow's decoders: their errors are reported."""
    _silence_libtiff()
    logger = logging.getLogger("PIL")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


@cache
def _silence_libtiff() -> None:
    """Let the libtiff that Pillow brings along print no lines of its own on standard error."""
    import PIL

    packages = Path(PIL.__file__).parents[1]
    for path in (*packages.glob("[pP]illow.libs/libtiff*"), *packages.glob("PIL/.dylibs/libtiff*")):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(path))
            for handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                handler.argtypes = [ctypes.c_void_p]
                handler(None)


def opened(source: Path | IO[bytes]) -> Image.Image:
    """Open a picture without decoding it: its format, mode and size are known then.

    Raises:
        UnreadableError: it is no ordinary file, has no known format or too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, Path) and not source.is_file():  # opening a FIFO would wait for ever
        raise UnreadableError("no ordinary file")
    Image.init()
    try:
        image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError:
        raise UnreadableError(_TOO_LARGE) from None
    except UnidentifiedImageError:
        raise UnreadableError("empty" if _is_empty(source) else "no known format") from None
    if image.width * image.height > LARGEST_PIXELS:
        image.close()
        raise UnreadableError(_TOO_LARGE)
    return image


_TOO_LARGE = f"more than {LARGEST_PIXELS // 10**6} million pixels"


def _is_empty(source: Path | IO[bytes]) -> bool:
    return isinstance(source, Path) and source.stat().st_size == 0


def decoded(source: Path | IO[bytes], shape: Shape) -> Picture:
    """Decode a picture and convert it to `shape`.

    Raises:
        Exception: of any type, as decoders raise them for a damaged file; see `reason`.
    """
    return decoded_at(source, [shape])[0]


def decoded_at(source: Path | IO[bytes], shapes: Sequence[Shape]) -> list[Picture]:
    """Decode a picture and convert it to several shapes, each as if it were the only one.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is at least twice the size wanted.
    Shapes of the same fraction share one decoding.

    Raises:
        Exception: of any type, as decoders raise them for a damaged file; see `reason`.
    """
    known: dict[tuple[int, int], tuple[Image.Image, int | None]] = {}
    pictures = list[Picture]()
    for shape in shapes:
        with opened(source) as image:
            side = 2 * max(sides(shape.size))  # of both, since it may have to be rotated
            image.draft(None, (side, side))
            if (drafted := image.size) not in known:
                known[drafted] = _upright(image), _declared_bits(image)
        upright, declared = known[drafted]
        pictures.append(converted(upright, shape, declared))
    return pictures


def converted(image: Image.Image, shape: Shape, bits: int | None = None) -> Picture:
    """Convert a decoded picture to `shape`.

    Args:
        image: The picture.
        shape: What it is converted to.
        bits: Range of its grey levels, if it states one.

    Raises:
        UnreadableError: the range of its levels is unknown or is exceeded.
    """
    colour = _as_rgb(image, bits or shape.bits)
    resized = fitted(colour, shape.size, shape.fit)
    pixels = np.asarray(resized)
    grey = bool((pixels == pixels[..., :1]).all())
    if shape.channels == 1:
        pixels = np.asarray(resized.convert("L"))[..., None]
    enlarged = image.width < resized.width or image.height < resized.height
    return Picture(pixels.transpose(2, 0, 1), grey, enlarged)


def as_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return RGB images `(n, 3, height, width)` with one channel, the luma of ITU-R 601, or three.

    Args:
        images: uint8 images.
        channels: 1 or 3.
    """
    if channels == 3:
        return images
    luma = np.tensordot(np.array([0.299, 0.587, 0.114]), images, axes=([0], [1]))
    return np.rint(luma).astype(np.uint8)[:, None]


def fitted(image: Image.Image, size: Size, fit: Fit) -> Image.Image:
    """Return a picture of `size` pixels, resized by bilinear interpolation."""
    from PIL import Image, ImageOps

    method, (height, width) = Image.Resampling.BILINEAR, sides(size)
    if fit == "pad":
        return ImageOps.pad(image, (width, height), method, color="white")
    if fit == "squash":
        return image.resize((width, height), method)
    part_width = min(image.width, image.height * width / height)
    part_height = min(image.height, image.width * height / width)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    box = left, top, left + part_width, top + part_height
    return image.resize((width, height), method, box=box)


def reason(error: Exception) -> str:
    """Return why a file was not decoded, in one short line."""
    text = " ".join(str(error).split())[:100]
    if isinstance(error, UnreadableError):
        return text
    return f"damaged ({text or type(error).__name__})"


def peak_level(source: Path | IO[bytes]) -> int | None:
    """Return the largest grey level of a file of more than 8 bits that states no range, or None."""
    with suppress(Exception), opened(source) as image:
        if image.mode.startswith("I") and _declared_bits(image) is None:
            return int(np.asarray(image).max())
    return None


def _declared_bits(image: Image.Image) -> int | None:
    """Return the range of grey levels in bits, if the file states one of 9 to 15, or Pillow's."""
    if image.format == "PPM":  # Pillow scales its levels to 16 bits
        return 16
    tags = getattr(image, "tag_v2", None)
    stated = tags.get(_BITS_PER_SAMPLE) if tags else None
    bits = stated[0] if isinstance(stated, tuple) and stated else stated
    return bits if isinstance(bits, int) and 8 < bits < 16 else None


def _upright(image: Image.Image) -> Image.Image:
    """Return a picture rotated as its EXIF data says; damaged EXIF data say nothing."""
    from PIL import ImageOps

    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are intact
        return image


def _as_rgb(image: Image.Image, bits: int | None) -> Image.Image:
    """Return a picture as 8-bit RGB; transparent parts become white."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255
        return _from_levels(np.asarray(image), bits, image.info.get("transparency"))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_levels(levels: NDArray[np.generic], bits: int | None, clear: object) -> Image.Image:
    """Return grey levels of 0 to `2**bits - 1` as RGB; the level `clear` becomes white."""
    from PIL import Image

    held = (one for one in BITS if levels.max() < 2**one)
    most = 2 ** (bits or next(held, BITS[-1])) - 1
    if levels.dtype.kind == "f" or levels.min() < 0:
        raise UnreadableError("levels without a known range")
    if levels.max() > most:
        raise UnreadableError(f"levels above {most}; set data.grey_bits")
    eight = (levels.astype(np.int64) * 255 + most // 2) // most
    white = levels == clear
    return Image.fromarray(np.where(white, 255, eight).astype(np.uint8)).convert("RGB")
