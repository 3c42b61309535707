"""The work of `nas paper`: train both models, measure them, examine them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from nas.artefacts import CHECKPOINT, WEIGHTS
from nas.checkpoint import read_tensors
from nas.datasets import ImageDataset, load_dataset
from nas.datasets.dataset import split_lengths
from nas.timed_models import TimedImages
from profiling.allocator import tune_allocator
from profiling.environment import select_device, threads
from profiling.files import require_writable
from profiling.lane import Lane
from profiling.resources import cores
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from studies.config.study import StudyConfig
from studies.launch import run_study
from studies.paper.estimate import Work, in_words, measure_pace, memory_bytes
from studies.paper.examination import Examination
from studies.paper.results import (
    PaperOptions,
    PaperResults,
    check_options,
    require_both,
)
from studies.paper.timing import BATCHES, Timing, TrainedModels, config_for, load_or_measure
from studies.record.records import StudyRecord
from studies.run.display import Display
from studies.run.evaluators import ProgressBar
from studies.run.forecast import count_images

_DEFAULT_COUNT = 20_000
_TIMED_PASSES = 80
"""Approximate number of passes at batch 32 in which both protocols measure one model."""


@dataclass(frozen=True)
class Job:
    """One run of `nas paper`.

    Attributes:
        config: A study without a search.
        root: Folder of the studies.
        options: Options of the page.
    """

    config: StudyConfig
    root: Path
    options: PaperOptions

    @property
    def device(self) -> torch.device:
        """The device on which models are trained and timed."""
        return select_device(self.config.device)

    @property
    def thread_count(self) -> int:
        """Number of threads for training and examining."""
        return self.config.threads or cores()

    @property
    def architectures(self) -> dict[str, Architecture]:
        """Both models at the study's image size."""
        size = self.config.load_space().image_size
        return {name: one.resized(size) for name, one in REFERENCES.items()}


def redraw(job: Job, display: Display, progress_bar: ProgressBar) -> PaperResults:
    """Do the remaining work and return all results.

    Raises:
        UserError, ProfilingError: the work cannot be done as requested.
    """
    require_writable(job.root)
    dataset = _images(job, progress_bar)
    check_options(job.options, dataset, job.architectures)
    study, _ = run_study(job.config, job.root, display=display, progress_bar=progress_bar)
    require_both(study)
    models = _trained_models(job, study, dataset)
    times = tuple(_timing(job, models, study, batch, progress_bar) for batch in BATCHES)
    with threads(job.thread_count):
        examined = Examination(study, dataset, job.config.training, job.device, progress_bar)
        return examined.results(times, job.options)


def estimate(job: Job) -> str | None:
    """Estimate the time of the remaining work from a few batches; None if both are trained.

    Raises:
        UserError: the folder of the images has too few.
    """
    count = count_images(job.config.data)[0] or _DEFAULT_COUNT
    left = {name: _left(job, one, count) for name, one in job.architectures.items()}
    if not any(work.epochs for work in left.values()):
        return None
    tune_allocator()
    batch, seconds = job.config.training.batch_size, 0.0
    for name, one in job.architectures.items():
        pace = measure_pace(one, job.config.training, job.device, job.thread_count)
        seconds += left[name].seconds(pace, batch) + _TIMED_PASSES * pace.evaluation_s
    return in_words(seconds, memory_bytes(job.architectures, batch), job.device)


def _left(job: Job, architecture: Architecture, count: int) -> Work:
    folder = job.root / job.config.name / "artefacts" / architecture.digest
    done = (
        job.config.training.epochs if (folder / WEIGHTS).is_file() else _epochs(folder / CHECKPOINT)
    )
    left = max(0, job.config.training.epochs - done)
    return Work(left, *split_lengths(count))


def _epochs(checkpoint: Path) -> int:
    """Return the number of epochs in a checkpoint; 0 if there is none, or a damaged one."""
    try:
        return len(json.loads(read_tensors(checkpoint)[1].get("history", "[]")))
    except (UserError, ValueError, TypeError, RecursionError):
        return 0


def _images(job: Job, progress_bar: ProgressBar) -> ImageDataset:
    size = job.config.load_space().image_size
    with progress_bar(f"loading {job.config.data.kind}") as progress, Lane("cpu").training():
        return load_dataset(job.config.data, size, progress)


def _trained_models(job: Job, study: StudyRecord, dataset: ImageDataset) -> TrainedModels:
    folder = (study.folder / "artefacts").absolute()
    weights = {name: folder / one.digest / WEIGHTS for name, one in job.architectures.items()}
    return TrainedModels(job.architectures, TimedImages.of(dataset), weights)


def _timing(
    job: Job, models: TrainedModels, study: StudyRecord, batch: int, progress_bar: ProgressBar
) -> Timing:
    path = study.folder / "paper" / f"latency-{batch}.json"
    with progress_bar(f"measuring batch {batch}") as progress:
        config = config_for(job.config.latency, batch)
        return load_or_measure(models, config, job.device, path, progress)
