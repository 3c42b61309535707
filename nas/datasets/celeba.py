"""Read CelebA in the layouts of its authors and of Kaggle, and write images in its layout."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from nas.datasets.dataset import DataConfig, ImageDataset
from nas.datasets.files import existing_folder, from_files, listed, read_images
from profiling.progress import Progress
from search_spaces.errors import UserError

IMAGES = "img_align_celeba"
ATTRIBUTE_FILES = ("list_attr_celeba.csv", "list_attr_celeba.txt")
PAPER_COUNT = 20_000


def load_celeba(config: DataConfig, image_size: int, progress: Progress | None) -> ImageDataset:
    """Load the paper's selection: the first 20,000 images by file name, or `config.count`.

    `config.path` contains `img_align_celeba/` (also below `Img/`, or nested in itself as in the
    archive of Kaggle) and optionally the attributes, `list_attr_celeba.csv` or `.txt` (also below
    `Anno/`). The official partition is not used: the paper splits at random.

    Raises:
        UserError: the folder is missing, has too few images or too many unreadable ones, or the
            attribute file has no row for an image.
    """
    root = existing_folder(config)
    folder = _image_folder(root)
    count = config.count or PAPER_COUNT
    paths = listed(folder, folder.glob("*"), {".jpg"})[:count]
    read = read_images(folder, paths, image_size, progress)
    names, attributes = _read_attributes(root, read.names)
    return from_files("celeba", read, config, names, attributes)


def export_celeba(dataset: ImageDataset, directory: Path, progress: Progress | None = None) -> None:
    """Write `dataset` in CelebA's layout; `load_celeba` reads it back.

    Images become `img_align_celeba/000001.jpg` and so on (JPEG quality 95, full chroma), the split
    `list_eval_partition.csv` (0 training, 1 validation, 2 test), the attributes, if any,
    `list_attr_celeba.csv` (1 or -1). They are moved to `directory` after all of them are written:
    after an interruption the same call starts again.

    Raises:
        UserError: `directory` already contains `img_align_celeba`, or cannot be written.
    """
    try:
        if (directory / IMAGES).exists():
            found = str(directory / IMAGES)
            raise UserError(f"directory: {found!r} already exists; give another directory")
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=directory, prefix=".unfinished-") as scratch:
            _write_images(dataset, Path(scratch) / IMAGES, progress)
            _write_tables(dataset, Path(scratch))
            for part in sorted(Path(scratch).iterdir(), reverse=True):  # the images are moved last
                part.replace(directory / part.name)
    except OSError as error:
        raise UserError(
            f"directory: {str(directory)!r} cannot be written ({error.strerror or error}); give a "
            "writable folder with enough space"
        ) from error


def _names(dataset: ImageDataset) -> list[str]:
    return [f"{number:06d}.jpg" for number in range(1, len(dataset) + 1)]


def _write_images(dataset: ImageDataset, folder: Path, progress: Progress | None) -> None:
    from PIL import Image

    folder.mkdir()
    for row, name in enumerate(_names(dataset)):
        pixels = np.ascontiguousarray(dataset.images[row].transpose(1, 2, 0))
        Image.fromarray(pixels).save(folder / name, quality=95, subsampling=0)
        if progress is not None:
            progress(row + 1, len(dataset))


def _write_tables(dataset: ImageDataset, directory: Path) -> None:
    names = _names(dataset)
    if dataset.attributes is not None:
        signs = np.where(dataset.attributes, 1, -1).tolist()
        rows = ([name, *row] for name, row in zip(names, signs, strict=True))
        _write_csv(directory / ATTRIBUTE_FILES[0], ["image_id", *dataset.attribute_names], rows)
    partition = np.zeros(len(names), np.int64)
    partition[dataset.validation], partition[dataset.test] = 1, 2
    parts = ([name, part] for name, part in zip(names, partition.tolist(), strict=True))
    _write_csv(directory / "list_eval_partition.csv", ["image_id", "partition"], parts)


def _write_csv(path: Path, header: Sequence[str], rows: Iterator[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _image_folder(root: Path) -> Path:
    for folder in (root / IMAGES / IMAGES, root / IMAGES, root / "Img" / IMAGES):
        if folder.is_dir():
            return folder
    raise UserError(
        f"path: {str(root)!r} has no folder {IMAGES!r}; give the folder that contains it, or use "
        "kind 'folder' for images in another layout"
    )


def _read_attributes(
    root: Path, wanted: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.bool_] | None]:
    """Return attribute names and bool `(images, names)`; empty and None without a file."""
    candidates = (folder / name for folder in (root, root / "Anno") for name in ATTRIBUTE_FILES)
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return (), None
    try:
        names, found = _find_rows(path, set(wanted))
    except (OSError, ValueError, csv.Error) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise UserError(
            f"{path}: cannot be read ({reason}); download it again, or remove it to load the "
            "images without attributes"
        ) from None
    _check(path, names, found, set(wanted) - found.keys())
    return names, np.array([[value == "1" for value in found[one]] for one in wanted], np.bool_)


def _find_rows(path: Path, missing: set[str]) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """Return the attribute names, and by file name the values of the wanted images."""
    rows = _rows(path)
    names, found = tuple(next(rows, [])), {}
    for image, *values in rows:
        if image in missing:
            found[image] = [value.strip() for value in values]
            missing.discard(image)
        if not missing:
            break
    return names, found


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the attribute names, then for each image a list of its file name and values."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            reader = csv.reader(file)
            yield next(reader, [])[1:]
            yield from (row for row in reader if row)
        else:
            next(file, None)  # the number of images
            yield from (line.split() for line in file if line.strip())


def _check(
    path: Path, names: Sequence[str], found: dict[str, list[str]], missing: set[str]
) -> None:
    if missing:
        raise UserError(
            f"{path}: {len(missing)} images have no row, first {min(missing)!r}; use the attribute "
            "file of these images, or remove it to load them without attributes"
        )
    for image, values in found.items():
        if len(values) != len(names):
            raise UserError(
                f"{path}: {image!r} has {len(values)} values for {len(names)} attributes; "
                "download the file again"
            )
        if wrong := [value for value in values if value not in ("1", "-1", "0")]:
            raise UserError(
                f"{path}: {image!r} has a value {wrong[0][:40]!r}, but each is 1 or -1; "
                "download the file again"
            )
