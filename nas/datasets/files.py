"""Read images from files: list, decode, resize without cropping, and cache them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.datasets.cache import Entry, Images, Labels
from nas.datasets.dataset import (
    DataConfig,
    ImageDataset,
    fingerprint_of,
    require_enough,
    split_indices,
)
from profiling.progress import Progress
from profiling.resources import logical_cpus
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read whatever the suffix says. EPS is none of them: its reader starts
Ghostscript."""
DECODER_VERSION = 2
"""Part of the cache's key: increase it when the same file gives other pixels."""
UNREADABLE_SHARE = 0.01
"""Maximum share of unreadable files, which are skipped and listed. A larger share is an error."""


@dataclass(frozen=True)
class FileImages:
    """Images read from files.

    Attributes:
        images: `(count, 3, size, size)` uint8, in the order of `names`.
        names: Paths of the readable files, relative to the folder.
        skipped: Paths of the unreadable files.
        digest: SHA-256 of the images.
    """

    images: Images
    names: tuple[str, ...]
    skipped: tuple[str, ...]
    digest: str


def load_folder(config: DataConfig, image_size: int, progress: Progress | None) -> ImageDataset:
    """Load every image below `config.path`, or the first `config.count` by relative path.

    Raises:
        UserError: the folder is missing, or has fewer than 10 images or too many unreadable ones.
    """
    root = existing_folder(config)
    paths = listed(root, root.rglob("*"), SUFFIXES)[: config.count]
    read = read_images(root, paths, image_size, progress)
    return from_files("folder", read, config)


def existing_folder(config: DataConfig) -> Path:
    """Return the folder of `config.path`.

    Raises:
        UserError: the folder does not exist, or `~` has no meaning.
    """
    assert config.path is not None
    try:
        root = config.path.expanduser()
        found = root.is_dir()
    except RuntimeError:  # a user without a home folder, or no such user
        raise UserError(f"path: {str(config.path)!r} is in no known home folder") from None
    except OSError as error:  # a name that is too long
        raise UserError(f"path: {str(config.path)!r} cannot be read ({error.strerror})") from None
    if not found:
        raise UserError(f"path: {str(root)!r} is not a folder; give the folder of the images")
    return root


def listed(root: Path, paths: Iterable[Path], suffixes: Container[str]) -> list[Path]:
    """Return those of `paths` that have one of the suffixes and are no folders, sorted.

    Dangling links and files that are no ordinary files are included; `read_images` counts them as
    unreadable.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        found = [path for path in paths if path.suffix.lower() in suffixes and not path.is_dir()]
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror or error})") from None
    return sorted(found)


def from_files(
    name: str,
    read: FileImages,
    config: DataConfig,
    attribute_names: tuple[str, ...] = (),
    attributes: NDArray[np.bool_] | None = None,
) -> ImageDataset:
    """Return the data set of images read from files, with its split and fingerprint."""
    train, validation, test = split_indices(len(read.images), config.split_seed)
    return ImageDataset(
        name=name,
        images=read.images,
        attribute_names=attribute_names,
        attributes=attributes,
        train=train,
        validation=validation,
        test=test,
        skipped=read.skipped,
        fingerprint=fingerprint_of(pixels=read.digest, split_seed=config.split_seed),
    )


def read_images(
    root: Path, paths: Sequence[Path], size: int, progress: Progress | None
) -> FileImages:
    """Read `paths` as RGB at `(size, size)`, through the cache.

    The cache identifies a file by its path, length and modification time.

    Raises:
        UserError: there are fewer than 10 files, or more than 1 % of them are unreadable.
    """
    require_enough(len(paths), str(root))
    names = [path.relative_to(root).as_posix() for path in paths]
    stats = [_stat(path) for path in paths]
    listing = [(n, s.st_size, s.st_mtime_ns) for n, s in zip(names, stats, strict=True)]
    key = fingerprint_of(decoder=DECODER_VERSION, root=str(root.resolve()), listing=listing)

    def fill(start: int, stop: int) -> tuple[Images, Labels]:
        return _decode(paths[start:stop], size)

    entry = Entry(stem=f"files-{key}-{size}px", size=size, labels=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of images that are read all the same
        images, labels = entry.load(
            len(paths), fill, threads=logical_cpus(), chunk=64, progress=progress
        )
    readable = np.asarray(labels)[:, 0]
    skipped = tuple(name for name, ok in zip(names, readable, strict=True) if not ok)
    _refuse_many(root, skipped, len(paths))
    kept = tuple(name for name, ok in zip(names, readable, strict=True) if ok)
    require_enough(len(kept), str(root))
    if skipped:
        entry, images = _readable_only(entry, images, labels)
    return FileImages(images, kept, skipped, entry.digest(images))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:  # a dangling link, or removed meanwhile
        return os.stat_result((0,) * 10)


def _formats() -> list[str]:
    """Return the formats that Pillow may read here: none that starts an outside program."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decode(paths: Sequence[Path], size: int) -> tuple[Images, Labels]:
    """Decode and resize images; the label of an image is whether it was readable."""
    from PIL import Image, ImageOps

    formats = _formats()
    images = np.zeros((len(paths), 3, size, size), np.uint8)
    readable = np.zeros((len(paths), 1), np.bool_)
    for row, path in enumerate(paths):
        if not path.is_file():  # opening a FIFO would wait for ever
            continue
        try:
            with Image.open(path, formats=formats) as opened:
                upright = _as_rgb(ImageOps.exif_transpose(opened))
            resized = upright.resize((size, size), Image.Resampling.BILINEAR)
        except Exception:  # decoders raise any type for a damaged file; the caller counts them
            continue
        images[row] = np.asarray(resized).transpose(2, 0, 1)
        readable[row] = True
    return images, readable


def _as_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB; 16-bit greys are scaled, transparent parts become white.

    Raises:
        ValueError: the range of the pixels is unknown, as for floats.
    """
    from PIL import Image

    if image.mode.startswith(("I", "F")):  # Pillow would clip these at 255
        levels = np.asarray(image)
        if image.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise ValueError("pixels without a known range")
        clear = levels == image.info.get("transparency")
        eight = (levels.astype(np.int64) + 128) // 257  # 65535 = 255 x 257
        return Image.fromarray(np.where(clear, 255, eight).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _refuse_many(root: Path, skipped: Sequence[str], count: int) -> None:
    if len(skipped) <= UNREADABLE_SHARE * count:
        return
    shown = ", ".join(map(_printable, skipped[:5])) + (", ..." if len(skipped) > 5 else "")
    raise UserError(
        f"{root}: {len(skipped)} of {count} images cannot be read, which is more than "
        f"{UNREADABLE_SHARE:.0%}; repair or remove {shown}"
    )


def _printable(name: str) -> str:
    """Return a file name with escapes for control characters and undecodable bytes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in name)


def _readable_only(entry: Entry, images: Images, labels: Labels) -> tuple[Entry, Images]:
    """Return a second entry without the unreadable rows, whose images are contiguous."""
    rows = np.flatnonzero(labels[:, 0])

    def fill(start: int, stop: int) -> tuple[Images, Labels]:
        return images[rows[start:stop]], labels[rows[start:stop]]

    compact = Entry(stem=f"{entry.stem}-readable", size=entry.size, labels=1)
    return compact, compact.load(len(rows), fill, threads=1, chunk=512)[0]
