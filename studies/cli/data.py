"""`nas data`: preview and export images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from profiling.files import behind_links, replacing
from search_spaces.errors import UserError
from studies.cli.console import stdout
from studies.cli.formats import format_option, show
from studies.cli.main import HelpfulGroup
from studies.cli.options import SEED, OutPath, Pixels, Whole, progress_bar
from studies.record.formats import listed
from studies.record.table_files import cannot_write

if TYPE_CHECKING:
    from PIL import Image

    from nas.datasets import DataConfig, ImageDataset
    from search_spaces.sizes import Size


@click.group(cls=HelpfulGroup)
def data() -> None:
    """Preview and export the images of a data set."""


_path = click.option(
    "--path", type=click.Path(path_type=Path), help="Folder of the images; for celeba and folder."
)
_size = click.option(
    "--size", type=Pixels(8, 1024), default="144", show_default=True,
    help="Side of the images in pixels, or height and width as in 144x96.",
)  # fmt: skip


_fit = click.option(
    "--fit", help="How an image gets the size: squash, crop or pad.",
)  # fmt: skip


_images = click.option(
    "--images", type=Whole(10), help="Number of images that a study would use.",
)  # fmt: skip


@data.command()
@click.argument("kind", default="faces")
@_path
@_size
@_fit
@_images
@click.option("--rows", type=Whole(1, 50), default=6, show_default=True, help="Rows of images.")
@click.option(
    "--columns", type=Whole(1, 50), default=10, show_default=True,
    help="Columns of images.",
)  # fmt: skip
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the images.")
@click.option(
    "-o", "--out", type=OutPath(), default=Path("preview.png"), show_default=True,
    help="PNG file to write.",
)  # fmt: skip
def preview(
    kind: str,
    path: Path | None,
    size: Size,
    fit: str | None,
    images: int | None,
    rows: int,
    columns: int,
    seed: int,
    out: Path,
) -> None:
    """Write a sheet of images as PNG. KIND is faces (default), celeba or folder.

    Only the images that are shown are decoded.
    """
    from nas.datasets import CHOICES, contact_sheet, load_dataset, preview_images

    count = rows * columns
    if kind == "faces":
        config = _config(kind, path=path, count=max(count, 10), seed=seed, fit=fit)
        with progress_bar(f"loading {kind}") as progress:
            dataset = load_dataset(config, size, progress)
        pixels, about = dataset.images, [f"{len(dataset):,} rendered faces"]
    else:
        config = _config(kind, path=path, fit=fit, count=images)
        with progress_bar(f"loading {kind}") as progress:
            choice = CHOICES[kind](config)
            pixels, about = preview_images(choice, config, size, count, seed, progress)
    save_picture(contact_sheet(pixels, rows, columns, seed), out)
    stdout.say(f"{out}: {rows} x {columns} of {'; '.join(about)}")


def save_picture(sheet: Image.Image, out: Path) -> None:
    """Write a picture to the file of `--out`; raise `UserError` if it cannot be written."""
    from PIL import Image

    kind = Image.registered_extensions().get(out.suffix.lower())
    if kind is None:
        unknown = f"unknown file extension: {out.suffix}"
        raise UserError(f"--out {out}: cannot be written ({unknown}); give a name.png")
    if out.exists() and not out.is_file():  # it would be replaced
        raise UserError(f"--out {out}: is no ordinary file; give another path")
    try:
        with replacing(behind_links(out)) as partial:
            sheet.save(partial, format=kind)
    except OSError as error:
        raise cannot_write("--out", out, error) from None


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_size
@_fit
@_images
@format_option
def info(folder: Path, size: Size, fit: str | None, images: int | None, kind: str) -> None:
    """Say what a FOLDER of images holds and what a study would do with it.

    FOLDER may also be an archive, a table or an array. The headers of all files are read. The
    images are decoded to find duplicates, if that takes a minute at most. The exit code is 2 if a
    study would refuse the images.
    """
    from nas.datasets.files import choose_in_folder
    from nas.datasets.inspection import inspect

    config = _config("folder", path=folder, fit=fit, count=images)
    with progress_bar("reading") as progress:
        facts, refusal = inspect(choose_in_folder(config), config, size, progress)
    rows = [{"fact": label, "found": text} for label, text in facts]
    show(kind, rows, lambda: _print_facts(rows))
    if refusal is not None:
        raise UserError(f"a study would stop: {refusal}")


def _print_facts(rows: list[dict[str, str]]) -> None:
    for row in rows:
        stdout.say(": ".join(row.values()), wrap=True)


@data.group(cls=HelpfulGroup)
def cache() -> None:
    """Fill, list or clear the images that are cached on this machine."""


@cache.command("list")
@format_option
def list_cache(kind: str) -> None:
    """List cached sets of images and unpacked archives with their sizes."""
    from nas.datasets.clearing import bytes_in, cached_sets

    paths = [path for inside in cached_sets().values() for path in inside]
    entries = [(path, bytes_in([path])) for path in paths]
    rows = [{"path": str(path), "bytes": size} for path, size in entries]
    show(kind, rows, lambda: _print_cache(entries))


def _print_cache(entries: list[tuple[Path, int]]) -> None:
    for path, size in entries:
        if size >= 10**5:
            stdout.say(f"{size / 1e6:10,.1f} MB  {path}")
    stdout.say(f"{sum(size for _, size in entries) / 1e6:10,.1f} MB  in all")


@cache.command("fill")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--size", "sizes", type=Pixels(8, 1024), multiple=True, required=True,
    help="Side of the images in pixels, or height and width as in 144x96; repeatable.",
)  # fmt: skip
@_fit
@_images
def fill_cache(folder: Path, sizes: tuple[Size, ...], fit: str | None, images: int | None) -> None:
    """Decode the images of a FOLDER once, for studies at several sizes.

    Studies find them in the cache. The pixels are the same as if each study decoded the files.
    """
    from nas.datasets.files import choose_in_folder, shape_of
    from nas.datasets.reading import cache_at, first_of
    from search_spaces.sizes import size_in_words

    config = _config("folder", path=folder, fit=fit, count=images)
    choice = choose_in_folder(config)
    shapes = [shape_of(choice, config, size, 3) for size in sizes]
    with progress_bar("decoding") as progress:
        read = cache_at(choice.source, shapes, choice.order, choice.count, progress)
    named = listed([f"{size_in_words(size)} px" for size in dict.fromkeys(sizes)])
    stdout.say(f"{folder}: {len(read.rows):,} images are cached at {named}")
    if read.skipped:
        names = first_of(read.skipped)
        stdout.say(
            f"{len(read.skipped):,} of {choice.count:,} cannot be read: {names}; all with reasons: "
            f"{read.unreadable}"
        )


@cache.command("clear")
def clear_cache() -> None:
    """Remove the cached sets of images that no process uses; they are made again when needed."""
    from nas.datasets.clearing import clear

    try:
        freed, kept = clear()
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be removed ({error.strerror})") from None
    stdout.say(f"{freed / 1e6:,.1f} MB freed")
    for name in kept:
        stdout.say(f"{name}: kept, because a process uses it")


@data.command("export")
@click.argument("kind")
@click.argument("directory", type=OutPath())
@_path
@_size
@click.option("--count", type=Whole(10), default=1000, show_default=True, help="Number of images.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of the images.")
def export_(
    kind: str, directory: Path, path: Path | None, size: Size, count: int, seed: int
) -> None:
    """Write images of KIND to DIRECTORY in the layout of CelebA.

    KIND is faces, celeba or folder. `--celeba DIRECTORY` reads the images.
    """
    from nas.datasets import export_celeba

    dataset = _load(kind, path, size, count, seed)
    with progress_bar("writing") as progress:
        export_celeba(dataset, directory, progress)
    stdout.say(f"{directory}: {len(dataset.images):,} images in CelebA's layout")


def _load(kind: str, path: Path | None, size: Size, count: int, seed: int) -> ImageDataset:
    from nas.datasets import load_dataset

    config = _config(kind, path=path, count=count, seed=seed)
    with progress_bar(f"loading {kind}") as progress:
        return load_dataset(config, size, progress)


def _config(kind: str, **values: Any) -> DataConfig:
    from pydantic import ValidationError

    from nas.datasets import DataConfig
    from search_spaces.errors import refusal

    given = {name: value for name, value in values.items() if value is not None}
    try:
        return DataConfig.model_validate({"kind": kind, **given})
    except ValidationError as error:
        raise refusal(error, "data", DataConfig) from None
