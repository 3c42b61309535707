"""Images to train on: rendered faces, a CelebA folder, or any folder of images."""

from __future__ import annotations

from collections.abc import Callable

from nas.datasets.celeba import choose_in_celeba, export_celeba, load_celeba
from nas.datasets.dataset import DataConfig, ImageDataset, split_indices
from nas.datasets.duplicates import duplicates_in_words
from nas.datasets.faces import load_faces
from nas.datasets.files import Choice, choose_in_folder, existing_source, load_folder
from nas.datasets.own import load_own, require_own
from nas.datasets.preview import contact_sheet, preview_images
from profiling.progress import Progress
from search_spaces.errors import UserError
from search_spaces.import_strings import is_import_string
from search_spaces.sizes import Size, sides, size_in_words

DATASETS: dict[str, Callable[[DataConfig, Size, int, Progress | None], ImageDataset]] = {
    "faces": load_faces,
    "celeba": load_celeba,
    "folder": load_folder,
}
"""The loader of each `DataConfig.kind`: takes image size, channels and a progress callback."""

CHOICES: dict[str, Callable[[DataConfig], Choice]] = {
    "celeba": choose_in_celeba,
    "folder": choose_in_folder,
}
"""What lists the images of each kind that is read from files."""

__all__ = [
    "CHOICES",
    "DATASETS",
    "DataConfig",
    "ImageDataset",
    "contact_sheet",
    "duplicates_in_words",
    "export_celeba",
    "load_dataset",
    "preview_images",
    "require_source",
    "split_indices",
]


def load_dataset(
    config: DataConfig, image_size: Size, progress: Progress | None = None, *, channels: int = 3
) -> ImageDataset:
    """Load the data set of `config` at `image_size` pixels, in colour or grey.

    The first load renders or decodes images into the cache (`$NAS_CACHE_DIR`, or the user's cache
    folder) and calls `progress(done, total)`; later loads memory-map the cached file.

    Raises:
        UserError: the size or the folder cannot be used; the message says what to do.
    """
    require_source(config, image_size)
    if is_import_string(config.kind):
        return load_own(config, image_size, channels, progress)
    return DATASETS[config.kind](config, image_size, channels, progress)


def require_source(config: DataConfig, image_size: Size) -> None:
    """Check quickly that a data set can be loaded, without reading an image.

    Raises:
        UserError: the size or the folder cannot be used.
    """
    if is_import_string(config.kind):
        require_own(config)
    elif config.kind != "faces":
        existing_source(config)
    if min(sides(image_size)) < 8:
        pixels = size_in_words(image_size)
        raise UserError(f"image_size: {pixels} is too small for a face; use at least 8")
