"""Compute the floors of a study once, when it begins: the mean image and PCA (`nas.floors`)."""

from __future__ import annotations

from typing import Any

from nas.datasets import ImageDataset
from nas.floors import compute_floors
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
    sizes, lane = latent_sizes(space), Lane("cpu")
    loss = config.training.model_dump(include={"ssim", "l1_weight"})
    source = {"data": dataset.fingerprint, **loss, "latent_sizes": sizes}
    with store.others.claimed("computing the floors"):
        if store.floors_source == source:
            return
        with (
            progress_bar("mean image and PCA") as progress,
            lane.training(),
            threads(config.threads or cores()),
        ):

            def on_step(done: int, total: int) -> None:
                lane.enter()
                progress(done, total)

            store.set_floors(source, compute_floors(dataset, config.training, sizes, on_step))


def latent_sizes(space: SearchSpace) -> list[int]:
    """Return the latent sizes of a space and of both references, in ascending order."""
    axis = space.axes.get("latent_size")
    fixed = space.fixed.get("latent_size", Architecture.model_fields["latent_size"].default)
    choices: Any = axis.choices if axis else (fixed,)
    return sorted({*choices, *(one.latent_size for one in REFERENCES.values())})
