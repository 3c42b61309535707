"""The trainings of the comparison, in the order of their use, and how one is made."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes.variants import VARIANTS, register
from nas.datasets import DataConfig, ImageDataset, load_dataset
from nas.training import CandidateFailed, EpochResult, Trainer, TrainingConfig
from profiling.allocator import tune_allocator
from profiling.environment import threads
from profiling.files import write_whole
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace

CHOICE, HELD_OUT = 10, 10
"""Numbers of random members of `wide` on which the recipe was chosen, and which tested it."""

EPOCHS, BATCH_SIZE = 6, 16

IMAGES = {64: 343, 144: 343}
"""Number of images by size in pixels: 240 to train on, 15 steps an epoch."""

FEW = ("adam 1e-3", "schedule-free 1e-2", "adam, heads, average 3e-3", "adam, heads, cosine 3e-3")
"""The variants that are compared on all models."""

HALF = "schedule-free 1e-2, bfloat16"
"""The default recipe where the processor has instructions for bfloat16."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        size: Side of the images in pixels.
        images: "faces" (rendered) or "photos".
        model: "original", "modified" or the number of a random member of `wide`.
        variant: Name of the recipe and its learning rate.
        seed: Seed of weights, order and noise.
    """

    size: int
    images: str
    model: str
    variant: str
    seed: int = 0

    def file(self, folder: Path) -> Path:
        """Return the path of the record."""
        variant = self.variant.replace(", ", "_").replace(" ", "_")
        return folder / f"{self.size}-{self.images}-{self.model}-{variant}-{self.seed}.json"

    @property
    def held_out(self) -> bool:
        """Whether the model had no part in the choice."""
        return self.model.isdecimal() and int(self.model) >= CHOICE


def plan() -> Iterator[Job]:
    """Yield all trainings, those on which the choice rests first.

    Trainings at 144 pixels, and on photographs, are dear: they check the choice on fewer models.
    """
    members = [str(number) for number in range(CHOICE + HELD_OUT)]
    chosen_on, held_out = [*REFERENCES, *members[:CHOICE]], members[CHOICE:]
    yield from _all(64, "faces", chosen_on, [*FEW, HALF])
    yield from _all(64, "faces", held_out, [*FEW, HALF])
    yield from _all(64, "photos", [*REFERENCES, *members[:3], *held_out[:3]], FEW[:3])
    yield from _all(64, "faces", chosen_on, ["adam 3e-3"])
    yield from _all(144, "faces", [*REFERENCES, members[0], held_out[0]], FEW[:2])
    yield from _all(144, "photos", REFERENCES, FEW[:2])
    others = [name for name in VARIANTS if name not in (*FEW, HALF, "adam 3e-3")]
    yield from _all(64, "faces", chosen_on, others)


def _all(size: int, images: str, models: Iterable[str], variants: Iterable[str]) -> Iterator[Job]:
    for model in models:
        for variant in variants:
            yield Job(size, images, model, variant)


def architecture(job: Job) -> Architecture:
    """Return the architecture of a job."""
    if job.model in REFERENCES:
        return REFERENCES[job.model].resized(job.size)
    return _members(job.size)[int(job.model)]


@cache
def _members(size: int) -> tuple[Architecture, ...]:
    """Return distinct random members of `wide`, the same choices at each size."""
    space, rng = SearchSpace.load(f"wide@{size}"), np.random.default_rng(20)
    found: dict[str, Architecture] = {}
    while len(found) < CHOICE + HELD_OUT:
        built = space.architecture(space.sample(rng))
        found.setdefault(built.digest, built)
    return tuple(found.values())


def run(job: Job, folder: Path, photos: Path | None) -> None:
    """Train one model with one thread and write its record."""
    tune_allocator()
    with threads(1):
        record = _train(job, _images(job.images, job.size, photos))
    write_whole(job.file(folder), (json.dumps(record, indent=1) + "\n").encode())


def _train(job: Job, images: ImageDataset) -> dict[str, Any]:
    steps = EPOCHS * -(-len(images.train) // BATCH_SIZE)
    recipe, variant = register(job.variant, steps)
    config = TrainingConfig(
        recipe=recipe,
        epochs=EPOCHS,
        patience=EPOCHS,
        batch_size=BATCH_SIZE,
        learning_rate=variant.learning_rate,
        precision=variant.precision,
        seed=job.seed,
    )
    epochs: list[EpochResult] = []
    failure, start_s = None, time.process_time()
    try:
        epochs.extend(Trainer(architecture(job), images, config).epochs())
    except CandidateFailed as error:
        failure = str(error)
    return {
        **asdict(job),
        "digest": architecture(job).digest,
        "images_fingerprint": images.fingerprint,
        "training_images": len(images.train),
        "epochs": [asdict(result) for result in epochs],
        "processor_s": time.process_time() - start_s,
        "failure": failure,
    }


@cache
def _images(kind: str, size: int, photos: Path | None) -> ImageDataset:
    if kind == "faces":
        return load_dataset(DataConfig(kind="faces", count=IMAGES[size]), size)
    config = DataConfig(kind="folder", path=photos, count=IMAGES[size], fit="squash")
    return load_dataset(config, size)


def finite(record: dict[str, Any]) -> bool:
    """Return whether a training ended without divergence."""
    return record["failure"] is None and all(map(math.isfinite, totals(record)))


def totals(record: dict[str, Any]) -> list[float]:
    """Return the total validation loss after each epoch."""
    return [epoch["validation"]["total"] for epoch in record["epochs"]]
