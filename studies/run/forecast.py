"""What a run of a study would evaluate, and how much time, memory and disk that would take.

Times are those that trials of a stored study took: of the same study, or else of another one of the
same space on the same device. Nothing is measured and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

import numpy as np

from nas.datasets import CHOICES
from nas.datasets.dataset import DataConfig, split_lengths
from nas.datasets.files import is_packed, split_of
from nas.evaluate import SHOWN_IMAGES
from nas.predict.operations import exact_costs
from profiling.environment import fingerprint, select_device
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.sizes import area
from search_spaces.space import SearchSpace
from studies.config.sources import stored_config
from studies.config.study import StudyConfig
from studies.record.names import HEAD
from studies.record.records import StudyRecord, TrialRecord
from studies.run.evaluators import default_workers, needed_memory_bytes
from studies.storage.addresses import shared
from studies.store.opened import NoStudyError
from studies.store.store import StudyStore, list_studies

_DRAWN = 30
"""Random architectures whose mean size is that of the weights of a candidate."""

_DEFAULT_COUNTS = {"faces": 20_000, "celeba": 20_000}
_WEIGHT_BYTES = 4
_UNTRAINED_STEPS = ("counting", "latency", "measuring")


@dataclass(frozen=True)
class Speed:
    """Mean times of some trials.

    Attributes:
        image_s: Seconds of training for each image and epoch; 0 where nothing was trained.
        other_s: Seconds of counting and measuring for each trial.
    """

    image_s: float
    other_s: float

    @classmethod
    def of(cls, trials: Sequence[TrialRecord], images: int) -> Self:
        """Return the speed of trials that were trained on so many images; not of no trials."""
        epochs = sum(len(trial.history) for trial in trials)
        trained_s = sum(epoch.get("duration_s", 0.0) for t in trials for epoch in t.history)
        timings = [trial.findings.timings_s for trial in trials]
        other_s = fmean(sum(one.get(step, 0.0) for step in _UNTRAINED_STEPS) for one in timings)
        return cls(trained_s / (images * epochs) if images * epochs else 0.0, other_s)

    def seconds(self, epochs: int, images: int) -> float:
        """Return the seconds of one trial."""
        return self.other_s + self.image_s * epochs * images


@dataclass(frozen=True)
class Speeds:
    """The speeds of a stored study.

    Attributes:
        study: Its name.
        candidates: Speed of what the search proposed.
        references: Speed of the reference models.
    """

    study: str
    candidates: Speed
    references: Speed


@dataclass(frozen=True)
class Forecast:
    """What a run would evaluate and take.

    Attributes:
        record: The study as it is stored; None if it is new.
        trials: Number of candidates that remain to be evaluated.
        references: Number of reference models that remain.
        confirmations: Largest number of trainings with further seeds.
        epochs: Largest number of epochs of a training; 0 if nothing is trained.
        images: Number of training images; None if it is not known before they are read.
        at_most: Whether there may be fewer, since an archive or a table is not unpacked for it.
        workers: Number of processes that evaluate.
        memory_bytes: Memory of all workers.
        disk_bytes: Weights and pictures of all models that remain.
        cached_bytes: All images in the cache; None if their number is not known.
        speeds: Measured speeds; None if there are none.
    """

    record: StudyRecord | None
    trials: int
    references: int
    confirmations: int
    epochs: int
    images: int | None
    at_most: bool
    workers: int
    memory_bytes: int
    disk_bytes: int
    cached_bytes: int | None
    speeds: Speeds | None

    @property
    def trial_s(self) -> float | None:
        """Seconds of one candidate; None if they are not known."""
        if self.speeds is None or (self.epochs and self.images is None):
            return None
        return self.speeds.candidates.seconds(self.epochs, self.images or 0)

    @property
    def search_s(self) -> float | None:
        """Seconds of the search, with all workers; None if they are not known."""
        if self.speeds is None or self.trial_s is None:
            return None
        reference_s = self.speeds.references.seconds(self.epochs, self.images or 0)
        return (self.trials * self.trial_s + self.references * reference_s) / self.workers

    @property
    def confirmation_s(self) -> float | None:
        """Largest time of the trainings with further seeds; None if it is not known."""
        if self.speeds is None or self.trial_s is None:
            return None
        slower = max(self.speeds.candidates.image_s, self.speeds.references.image_s)
        return self.confirmations * slower * self.epochs * (self.images or 0) / self.workers


def forecast(config: StudyConfig, root: Path, storage: str | None = None) -> Forecast:
    """Return what `nas study run` would do with this configuration.

    Raises:
        UserError, ProfilingError: the study is damaged, or there is no such device.
    """
    record, space = _stored(config, root, storage), config.load_space()
    device = str(select_device("cpu" if config.runner == "ray" else config.device))
    workers = config.workers or (
        1 if config.runner == "ray" else default_workers(config, space.image_size, device)
    )
    trials = max(0, config.search.trials - (record.searched if record else 0))
    references = len(REFERENCES.keys() - (set(record.references) if record else set()))
    confirmations = _confirmations(config, record)
    speeds = next(_speeds(config, root, record, device), None)
    models = (trials + references + confirmations) if config.trains else 0
    count, training, at_most = count_images(config.data) if config.trains else (0, 0, False)
    known = _images_of(record) if record else 0
    pixels = space.image_channels * area(space.image_size)
    return Forecast(
        record=record,
        trials=trials,
        references=references,
        confirmations=confirmations,
        epochs=config.training.epochs if config.trains else 0,
        images=known or training,
        at_most=at_most and not known,
        workers=workers,
        memory_bytes=workers * needed_memory_bytes(config, space.image_size),
        disk_bytes=round(models * (_mean_weight_bytes(space) + 2 * SHOWN_IMAGES * pixels)),
        cached_bytes=None if count is None else count * pixels,
        speeds=speeds,
    )


def _stored(config: StudyConfig, root: Path, storage: str | None) -> StudyRecord | None:
    store = StudyStore(root / config.name, storage)
    if not (store.folder / HEAD).is_file() and not shared(store.address):
        return None
    try:
        return store.record()
    except NoStudyError:
        return None


def _confirmations(config: StudyConfig, record: StudyRecord | None) -> int:
    asked = config.confirmation
    if asked is None or not config.trains:
        return 0
    done = sum(len(trial.runs) for trial in record.trials) if record else 0
    return max(0, asked.top * asked.seeds + len(REFERENCES) * (asked.seeds - 1) - done)


def count_images(data: DataConfig) -> tuple[int | None, int | None, bool]:
    """Return the number of images, of those for training, and whether there may be fewer.

    The files of a folder are listed for it.

    Raises:
        UserError: the folder has too few images, or cannot be split.
    """
    if data.kind in CHOICES and not is_packed(data):
        choice = CHOICES[data.kind](data)
        rows = choice.order[: choice.count]
        return choice.count, len(split_of(choice, rows, data).train), False
    count = data.count or _DEFAULT_COUNTS.get(data.kind)
    return count, None if count is None else split_lengths(count)[0], data.kind != "faces"


def _images_of(record: StudyRecord) -> int:
    return int((record.environment.get("images") or {}).get("train", 0))


def _speeds(
    config: StudyConfig, root: Path, record: StudyRecord | None, device: str
) -> Iterator[Speeds]:
    """Yield the speeds of this study, then those of others, the newest first."""
    yield from _of_study(record)
    here = fingerprint(device).device_name
    heads = [root / name / HEAD for name in list_studies(root) if name != config.name]
    for head in sorted(heads, key=lambda path: -path.stat().st_mtime):
        try:
            if stored_config(head).get("space") != config.space:
                continue
            other = StudyStore(head.parent).record()
        except UserError:  # damaged, or not reachable
            continue
        if other.environment.get("device_name") == here:
            yield from _of_study(other)


def _of_study(record: StudyRecord | None) -> Iterator[Speeds]:
    trained = [trial for trial in record.trials if trial.trained] if record else []
    candidates = [trial for trial in trained if not trial.reference]
    if record is None or not candidates:
        return
    images = _images_of(record)
    speed = Speed.of(candidates, images)
    references = [trial for trial in trained if trial.reference]
    yield Speeds(record.name, speed, Speed.of(references, images) if references else speed)


def _mean_weight_bytes(space: SearchSpace) -> float:
    rng = np.random.default_rng(0)
    drawn = [space.architecture(space.sample(rng)) for _ in range(_DRAWN)]
    return _WEIGHT_BYTES * float(exact_costs(drawn)["params"].mean())
