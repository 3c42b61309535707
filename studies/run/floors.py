"""Compute the floors of a study's images: the mean image and PCA (`nas.floors`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from nas.datasets import ImageDataset
from nas.floors import Floors, compute_floors
from nas.protocol import TrainingConfig
from profiling.environment import threads
from profiling.lane import Lane
from profiling.resources import cores
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.run.evaluators import ProgressBar
from studies.store.store import StudyStore


def record_floors(
    store: StudyStore,
    dataset: ImageDataset,
    config: StudyConfig,
    space: SearchSpace,
    progress_bar: ProgressBar,
) -> None:
    """Compute and record the floors, unless the study has those of these images and settings.

    Args:
        store: The study, open for writing.
        dataset: Its images.
        config: Its configuration.
        space: Its search space.
        progress_bar: Makes a progress bar from a label.
    """
    sizes = latent_sizes(space)
    loss = config.training.model_dump(include={"ssim", "l1_weight"})
    source = {"data": dataset.fingerprint, **loss, "latent_sizes": sizes}
    with store.others.claimed("computing the floors"):
        if store.floors_source == source:
            return
        thread_count = config.threads or cores()
        floors = shown_floors(dataset, config.training, sizes, thread_count, progress_bar)
        store.set_floors(source, floors)


def shown_floors(
    dataset: ImageDataset,
    training: TrainingConfig,
    sizes: Collection[int],
    thread_count: int,
    progress_bar: ProgressBar,
) -> Floors:
    """Compute floors as a training runs: beside measurements, with a progress bar.

    Args:
        dataset: The images.
        training: Settings of the loss.
        sizes: Latent sizes.
        thread_count: Number of threads.
        progress_bar: Makes a progress bar from a label.
    """
    lane = Lane("cpu")
    with (
        progress_bar("mean image and PCA") as progress,
        lane.training(),
        threads(thread_count),
    ):

        def on_step(done: int, total: int) -> None:
            lane.enter()
            progress(done, total)

        return compute_floors(dataset, training, sizes, on_step)


def latent_sizes(space: SearchSpace) -> list[int]:
    """Return the latent sizes of a space and of both references, in ascending order."""
    axis = space.axes.get("latent_size")
    fixed = space.fixed.get("latent_size", Architecture.model_fields["latent_size"].default)
    choices: Any = axis.choices if axis else (fixed,)
    return sorted({*choices, *(one.latent_size for one in REFERENCES.values())})
