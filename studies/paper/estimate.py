"""Estimate the time and memory of `nas paper` from a few batches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nas.datasets import ImageDataset
from nas.evaluate import training_memory_bytes
from nas.training import Trainer, TrainingConfig
from profiling.environment import threads
from profiling.lane import Lane
from profiling.resources import available_memory_bytes
from search_spaces.architecture import Architecture
from studies.record.formats import format_duration

_EXAMINED_IMAGES = 3_500
"""Approximate number of images evaluated after training besides the test set.

Training images for the attributes, interpolations, traversals and manipulated faces; encoding or
decoding alone counts as half an image.
"""

_TRAINED, _EVALUATED = 3, 2
"""Numbers of timed batches. The first one is a warm-up; the fastest of the others counts."""


@dataclass(frozen=True)
class Pace:
    """Seconds per batch of one model, in training (with the optimiser's step) and in evaluation."""

    training_s: float
    evaluation_s: float


@dataclass(frozen=True)
class Work:
    """Remaining work for one model.

    Attributes:
        epochs: Remaining epochs of training.
        train: Number of training images.
        validation: Number of validation images.
        test: Number of test images.
    """

    epochs: int
    train: int
    validation: int
    test: int

    def seconds(self, pace: Pace, batch: int) -> float:
        """Return the time that the work takes at a pace."""
        epoch = self.train / batch * pace.training_s + self.validation / batch * pace.evaluation_s
        examined = self.test + min(_EXAMINED_IMAGES, 2 * (self.train + self.test))
        return self.epochs * epoch + examined / batch * pace.evaluation_s


def measure_pace(
    architecture: Architecture, config: TrainingConfig, device: torch.device, thread_count: int
) -> Pace:
    """Train three batches of grey images and evaluate two, in the lane, and return the pace."""
    taken: list[float] = []
    one_epoch = config.model_copy(update={"epochs": 1})
    lane, begun = Lane(str(device)), time.perf_counter()

    def note(*_: int) -> None:
        nonlocal begun
        taken.append(time.perf_counter() - begun)
        lane.enter()  # waits for others' measurements; this is not the model's time
        begun = time.perf_counter()

    with lane.training(), threads(thread_count):
        trainer = Trainer(architecture, _grey(architecture, config.batch_size), one_epoch, device)
        for _ in trainer.epochs(on_batch=note):
            pass
    return Pace(min(taken[1:_TRAINED]), min(taken[_TRAINED:]))


def memory_bytes(architectures: Mapping[str, Architecture], batch: int) -> int:
    """Return the approximate memory for training the larger of the models, in bytes."""
    return max(training_memory_bytes(one, batch) for one in architectures.values())


def in_words(seconds: float, needed_bytes: int, device: torch.device) -> str:
    """Describe the estimate; on a CPU, warn if there is too little free memory."""
    text = f"this will take about {format_duration(seconds)} and {needed_bytes / 1e9:.1f} GB"
    free = available_memory_bytes()
    if device.type == "cpu" and needed_bytes > free:
        text += (
            f", but only {free / 1e9:.1f} GB are free: use a smaller --size or "
            "--set training.batch_size=16"
        )
    return text


def _grey(architecture: Architecture, batch: int) -> ImageDataset:
    count = (_TRAINED + _EVALUATED) * batch
    places = np.arange(count)
    return ImageDataset(
        name="grey",
        images=np.full((count, *architecture.image_shape), 128, np.uint8),
        attribute_names=(),
        attributes=None,
        train=places[: _TRAINED * batch],
        validation=places[_TRAINED * batch :],
        test=places[_TRAINED * batch :],
        skipped=(),
        fingerprint="grey",
    )
