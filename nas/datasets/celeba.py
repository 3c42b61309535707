"""Read CelebA in the layouts of its authors and of Kaggle, and write images in its layout."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from nas.datasets.choosing import PARTS
from nas.datasets.dataset import DataConfig, ImageDataset
from nas.datasets.files import Choice, existing_source, load_choice, pictures_folder
from nas.datasets.labels import Labels
from nas.datasets.listing import list_pictures
from nas.datasets.sources import Files
from profiling.progress import Progress
from search_spaces.errors import UserError, quoted
from search_spaces.sizes import Size

IMAGES = "img_align_celeba"
FOLDERS = (IMAGES, f"{IMAGES}_png")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
ATTRIBUTE_FILES = ("list_attr_celeba.csv", "list_attr_celeba.txt")
PARTITION_FILES = ("list_eval_partition.csv", "list_eval_partition.txt")
PAPER_COUNT = 20_000


def load_celeba(
    config: DataConfig, image_size: Size, channels: int, progress: Progress | None
) -> ImageDataset:
    """Load the paper's selection: the first 20,000 images by file name, or `config.count`.

    `config.path` contains `img_align_celeba/` (also below `Img/`, or nested in itself as in the
    archive of Kaggle, also as PNG) or is that folder. Attributes, `list_attr_celeba.csv` or `.txt`,
    are beside it, beside the folder around it, or below `Anno/`. The paper splits at random; with
    `config.split` `official` the parts are those of `list_eval_partition.csv` or `.txt`.

    Raises:
        UserError: the folder is missing, has too few images or too many unreadable ones, or a table
            has no row for an image.
    """
    return load_choice(choose_in_celeba(config), config, image_size, channels, progress)


def choose_in_celeba(config: DataConfig) -> Choice:
    """List the images and choose those that are used.

    Raises:
        UserError: the folder is missing, or a table has no row for an image.
    """
    given = existing_source(config)
    root = pictures_folder(given)
    folder = _image_folder(root)
    found = list_pictures(folder, SUFFIXES)
    names = tuple(name for name in found.names if "/" not in name)
    count = min(config.count or PAPER_COUNT, len(names))
    used = names[:count]
    attributes, values = _read_attributes(_table(root, folder, ATTRIBUTE_FILES), used)
    parts = None
    if config.split == "official":
        parts = _partition(_table(root, folder, PARTITION_FILES), root, used), "CelebA's partition"
    return Choice(
        name="celeba",
        source=Files(folder, used, str(folder if folder.is_relative_to(given) else given)),
        order=np.arange(count),
        count=count,
        how="the first by name",
        classes=("",) * count,
        labels=Labels(attributes, values),
        parts=parts,
        of=len(names),
    )


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
        pixels = np.ascontiguousarray(dataset.images[row].transpose(1, 2, 0).squeeze())
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
    _write_csv(directory / PARTITION_FILES[0], ["image_id", "partition"], parts)


def _write_csv(path: Path, header: Sequence[str], rows: Iterator[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _image_folder(root: Path) -> Path:
    """Return the folder of the images; of several that exist, one that has images."""
    inner = [folder / name for folder in (root, root / "Img") for name in FOLDERS]
    places = [path for folder in inner for path in (folder / folder.name, folder)]
    if root.name in FOLDERS:
        places += [root / name for name in FOLDERS] + [root]
    existing = [path for path in places if path.is_dir()]
    for folder in existing:
        if any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
            return folder
    if existing:
        return existing[0]
    raise UserError(
        f"path: {str(root)!r} has no folder {IMAGES!r}; give the folder that contains it, or use "
        "kind 'folder' for images in another layout"
    )


def _table(root: Path, images: Path, names: Sequence[str]) -> Path | None:
    """Return the first table of these names beside the images or the folders around them."""
    around = [root, *(path for path in images.parents if path.is_relative_to(root))]
    if root.name in FOLDERS:  # its tables are beside it
        around += [root.parent, root.parent.parent]
    places = (place / below for place in around for below in ("", "Anno", "Eval"))
    found = (place / name for place in places for name in names)
    return next((path for path in found if path.is_file()), None)


def _partition(path: Path | None, root: Path, wanted: Sequence[str]) -> list[str]:
    """Return the part of each image by the official partition: 0, 1 and 2 in its table."""
    if path is None:
        raise UserError(f"data.split: {root} has no {' or '.join(PARTITION_FILES)}")
    rows = _read(path, wanted, _partition_rows(path))
    _check_rows(path, rows, wanted)
    parts = dict(zip("012", PARTS, strict=True))
    for name, values in rows.items():
        if len(values) != 1 or values[0] not in parts:
            raise UserError(f"{path}: {name!r} has {quoted(values)}, but a part is 0, 1 or 2")
    return [parts[rows[Path(name).stem][0]] for name in wanted]


def _read_attributes(
    path: Path | None, wanted: Sequence[str]
) -> tuple[tuple[str, ...], NDArray[np.bool_] | None]:
    """Return attribute names and bool `(images, names)`; empty and None without a file."""
    if path is None:
        return (), None
    rows = _rows(path)
    names = tuple(_read_first(path, rows))
    found = _read(path, wanted, rows)
    _check_rows(path, found, wanted)
    _check_values(path, names, found)
    values = [[value == "1" for value in found[Path(one).stem]] for one in wanted]
    return names, np.array(values, np.bool_)


def _read_first(path: Path, rows: Iterator[list[str]]) -> list[str]:
    with _refusing(path):
        return next(rows, [])


def _read(path: Path, wanted: Sequence[str], rows: Iterator[list[str]]) -> dict[str, list[str]]:
    """Return the values of the wanted images, by name without ending: PNGs are listed as JPEGs."""
    missing, found = {Path(name).stem for name in wanted}, {}
    with _refusing(path):
        for image, *values in rows:
            stem = image.rpartition(".")[0] or image
            if stem in missing:
                found[stem] = [value.strip() for value in values]
                missing.discard(stem)
            if not missing:
                break
    return found


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, csv.Error) as error:
        reason = "not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise UserError(
            f"{path}: cannot be read ({reason}); download it again, or remove it to load the "
            "images without it"
        ) from None


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


def _partition_rows(path: Path) -> Iterator[list[str]]:
    """Yield for each image a list of its file name and part."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line in file:
            row = line.replace(",", " ").split()
            if row and row[0] != "image_id":
                yield row


def _check_rows(path: Path, found: Collection[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if Path(name).stem not in found]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} images have no row, first {min(missing)!r}; use the file of "
            "these images, or remove it to load them without it"
        )


def _check_values(path: Path, names: Sequence[str], found: dict[str, list[str]]) -> None:
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
