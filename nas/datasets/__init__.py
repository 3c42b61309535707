"""Images to train on: rendered faces, a CelebA folder, or any folder of images."""

from __future__ import annotations

from collections.abc import Callable

from nas.datasets.celeba import export_celeba, load_celeba
from nas.datasets.dataset import DataConfig, ImageDataset, split_indices
from nas.datasets.faces import load_faces
from nas.datasets.files import existing_folder, load_folder
from nas.datasets.preview import contact_sheet
from profiling.progress import Progress
from search_spaces.errors import UserError

DATASETS: dict[str, Callable[[DataConfig, int, Progress | None], ImageDataset]] = {
    "faces": load_faces,
    "celeba": load_celeba,
    "folder": load_folder,
}
"""The loader of each `DataConfig.kind`."""

__all__ = [
    "DATASETS",
    "DataConfig",
    "ImageDataset",
    "contact_sheet",
    "export_celeba",
    "load_dataset",
    "require_source",
    "split_indices",
]


def load_dataset(
    config: DataConfig, image_size: int, progress: Progress | None = None
) -> ImageDataset:
    """Load the data set of `config` at `image_size` x `image_size` pixels.

    The first load renders or decodes images into the cache (`$NAS_CACHE_DIR`, or the user's cache
    folder) and calls `progress(done, total)`; later loads memory-map the cached file.

    Raises:
        UserError: the size or the folder cannot be used; the message says what to do.
    """
    require_source(config, image_size)
    return DATASETS[config.kind](config, image_size, progress)


def require_source(config: DataConfig, image_size: int) -> None:
    """Check quickly that a data set can be loaded, without reading an image.

    Raises:
        UserError: the size or the folder cannot be used.
    """
    if config.kind != "faces":
        existing_folder(config)
    if image_size < 8:
        raise UserError(f"image_size: {image_size} is too small for a face; use at least 8")
