"""The images of a study: load them, record what they are, and say what was done with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nas.artefacts import write_or_refuse
from nas.datasets import DataConfig, ImageDataset, duplicates_in_words, load_dataset
from nas.evaluate import npy, shown_images
from profiling.lane import Lane
from search_spaces.errors import UserError
from search_spaces.sizes import Size
from studies.record.records import StudyRecord
from studies.run.evaluators import ProgressBar
from studies.store.store import StudyStore

UNREADABLE = "unreadable-images.txt"
"""File in the study's folder that lists images that could not be read."""


def load_images(
    data: DataConfig, image_size: Size, progress_bar: ProgressBar, channels: int = 3
) -> ImageDataset:
    """Load the images; pause while another process measures."""
    lane = Lane("cpu")

    def loaded(done: int, total: int) -> None:
        lane.enter()  # rendering and decoding disturb a measurement as much as training does
        progress(done, total)

    with progress_bar(f"loading {data.kind}") as progress, lane.training():
        return load_dataset(data, image_size, loaded, channels=channels)


def load_same_images(
    study: StudyRecord, data: DataConfig, progress_bar: ProgressBar, remedy: str
) -> ImageDataset:
    """Load the images of a study again.

    Args:
        study: The study.
        data: Its images.
        progress_bar: Makes a progress bar from a label.
        remedy: What the message says to do.

    Raises:
        UserError: they have changed since the search.
    """
    dataset = load_images(data, study.image_size, progress_bar, study.image_channels)
    if dataset.fingerprint != study.environment.get("data_fingerprint"):
        raise UserError(
            f"study {study.name!r}: its images have changed since the search, so that losses "
            f"cannot be compared; {remedy}"
        )
    return dataset


def data_facts(dataset: ImageDataset | None) -> dict[str, Any]:
    """Return the images' fingerprint and the number of images in each part, for the record."""
    if dataset is None:
        return {"data_fingerprint": None}
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    counts = {name: len(part) for name, part in parts.items()}
    images = {**counts, "skipped": len(dataset.skipped)}
    return {"data_fingerprint": dataset.fingerprint, "images": images}


def about_images(dataset: ImageDataset) -> list[str]:
    """Return sentences about choice, shape, split and duplicates of the images."""
    return [*dataset.about, *duplicates_in_words(dataset)]


def write_samples(store: StudyStore, dataset: ImageDataset) -> None:
    """Write the validation images that every candidate reconstructs."""
    write_or_refuse(store.artefacts / "samples.npy", npy(shown_images(dataset)))
    if store.mirror:
        store.mirror.push("samples.npy")


def say_images(
    store: StudyStore, dataset: ImageDataset, about: Sequence[str], note: Callable[[str], None]
) -> None:
    """Print what is known about the images, and list the unreadable ones in the study's folder.

    Args:
        store: The study.
        dataset: The images.
        about: As `about_images` returns it, which compares all images with each other.
        note: Prints a line.
    """
    for text in about:
        note(f"images: {text}")
    if dataset.unreadable is not None:
        path = store.folder / UNREADABLE
        write_or_refuse(path, dataset.unreadable.read_bytes())
        note(f"images: the unreadable ones, with reasons, are in {path}")
