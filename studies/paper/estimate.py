"""How long the whole will take and what memory it needs, from a few batches of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from nas.datasets import ImageDataset
from nas.evaluate import training_memory_bytes
from nas.training import Trainer, TrainingConfig
from profiling.environment import threads
from profiling.lane import Lane
from search_spaces.architecture import Architecture
from studies.record.formats import format_duration

_EXAMINED_IMAGES = 3_500
"""About as many images pass each model after its training besides the test set: training images
for the attributes, ways between images, traversals, manipulated faces, halves counted as such."""

_TRAINED, _EVALUATED = 3, 2
"""Batches that are timed; the first also warms up, and of the others the fastest counts."""


@dataclass(frozen=True)
class Pace:
    """Seconds per batch of one model, in training (with its step) and in evaluation."""

    training_s: float
    evaluation_s: float


@dataclass(frozen=True)
class Work:
    """What is left to do for one model: epochs, and whether its images are examined yet."""

    epochs: int
    train: int
    validation: int
    test: int

    def seconds(self, pace: Pace, batch: int) -> float:
        """Return the time at a pace."""
        epoch = self.train / batch * pace.training_s + self.validation / batch * pace.evaluation_s
        examined = self.test + min(_EXAMINED_IMAGES, 2 * (self.train + self.test))
        return self.epochs * epoch + examined / batch * pace.evaluation_s


def measure_pace(
    architecture: Architecture, config: TrainingConfig, device: torch.device, thread_count: int
) -> Pace:
    """Train three batches of grey images and evaluate two, in the lane; the first one warms up."""
    taken: list[float] = []
    one_epoch = config.model_copy(update={"epochs": 1})
    lane, begun = Lane(str(device)), time.perf_counter()

    def note(*_: int) -> None:
        nonlocal begun
        taken.append(time.perf_counter() - begun)
        lane.enter()  # may wait for others, which is none of the model's time
        begun = time.perf_counter()

    with lane.training(), threads(thread_count):
        trainer = Trainer(architecture, _grey(architecture, config.batch_size), one_epoch, device)
        for _ in trainer.epochs(on_batch=note):
            pass
    return Pace(min(taken[1:_TRAINED]), min(taken[_TRAINED:]))


def memory_bytes(architectures: Mapping[str, Architecture], batch: int) -> int:
    """Return about what training the larger of the models takes."""
    return max(training_memory_bytes(one, batch) for one in architectures.values())


def in_words(seconds: float, needed_bytes: int, device: torch.device) -> str:
    """Say what is ahead; on a CPU, also whether the memory is there."""
    text = f"this will take about {format_duration(seconds)} and {needed_bytes / 1e9:.1f} GB"
    free = psutil.virtual_memory().available
    if device.type == "cpu" and needed_bytes > free:
        text += (
            f", but only {free / 1e9:.1f} GB are free: a smaller --size, or "
            "--set training.batch_size=16, takes less"
        )
    return text


def _grey(architecture: Architecture, batch: int) -> ImageDataset:
    count, size = (_TRAINED + _EVALUATED) * batch, architecture.image_size
    places = np.arange(count)
    return ImageDataset(
        name="grey",
        images=np.full((count, 3, size, size), 128, np.uint8),
        attribute_names=(),
        attributes=None,
        train=places[: _TRAINED * batch],
        validation=places[_TRAINED * batch :],
        test=places[_TRAINED * batch :],
        skipped=(),
        fingerprint="grey",
    )
