"""Make a study's evaluators: number of workers, images, latency predictor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from nas.datasets import ImageDataset, load_dataset
from nas.evaluate import (
    Evaluator,
    training_memory_bytes,
)
from nas.objectives import LATENCY
from nas.predict.calibration import Setting
from nas.predict.operations import require_listed
from nas.predict.predictor import LatencyPredictor
from nas.protocol import OnBatch
from profiling.allocator import tune_allocator
from profiling.resources import available_memory_bytes, cores
from profiling.target.client import KnownTarget
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.sizes import Size
from studies.config.parts import require_parts
from studies.config.study import LEAST_MEMORY_BYTES, StudyConfig

ProgressBar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Makes a progress bar from a label; the bar's callback takes (done, total)."""


@dataclass(frozen=True)
class EvaluatorMaker:
    """Makes a study's evaluator in the calling process; it is picklable.

    Attributes:
        config: The study's configuration.
        image_size: Size of the images in pixels.
        device: Device of trainings and measurements, such as `cpu`.
        artefacts: Folder that artefacts are written to.
        anchors_ms: Latency of `original` in ms in each set-up; empty where it is not measured.
        sources: Digests of the sources of the user's own parts, by import string.
        fingerprint: That of the study's images; None is not compared.
        targets: The machines on which set-ups measure, by name.
    """

    config: StudyConfig
    image_size: Size
    device: str
    artefacts: Path
    anchors_ms: Mapping[str, float]
    sources: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str | None = None
    targets: Mapping[str, KnownTarget] = field(default_factory=dict)

    def __call__(self, on_batch: OnBatch) -> Evaluator:
        """Return the evaluator for a worker process, with images from the cache.

        Raises:
            UserError: images or sources of the user's own parts are not those of the study.
        """
        tune_allocator()
        require_parts(self.config, self.sources)
        device = torch.device(self.device)
        trains = self.config.trains
        channels = self.config.image_channels
        dataset = (
            load_dataset(self.config.data, self.image_size, channels=channels) if trains else None
        )
        if dataset and self.fingerprint not in (None, dataset.fingerprint):
            raise UserError(
                f"data: {self.config.data.kind} has other images in a worker process than when the "
                "study began; a data set must return the same images at each call"
            )
        predictor = load_predictor(self.config, device, self.image_size, self.targets)
        return self.make(on_batch, dataset, predictor)

    def make(
        self,
        on_batch: OnBatch,
        dataset: ImageDataset | None,
        predictor: LatencyPredictor | None,
    ) -> Evaluator:
        """Return the evaluator for images and a predictor that are loaded already."""
        config = self.config
        return Evaluator(
            dataset=dataset,
            predictor=predictor,
            training=config.training,
            latency=config.latency,
            device=torch.device(self.device),
            wanted=set(config.wanted),
            anchors_ms=self.anchors_ms,
            setups=config.setups,
            targets=self.targets,
            artefacts=self.artefacts,
            thread_count=config.threads or self._threads(),
            on_batch=on_batch,
        )

    def _threads(self) -> int:
        if self.config.runner == "ray":
            return max(1, int(self.config.ray.cpus_per_trial))
        return max(1, cores() // self.workers)

    @cached_property
    def workers(self) -> int:
        """Number of processes that evaluate on this machine."""
        return self.config.workers or default_workers(self.config, self.image_size, self.device)


def default_workers(config: StudyConfig, image_size: Size, device: str) -> int:
    """Return the default number of workers: one on a GPU, else one per core if memory allows.

    At most four fifths of the available memory are used.
    """
    if device != "cpu" or not config.trains:
        return 1
    room = available_memory_bytes() * 4 // 5
    return max(1, min(cores(), room // needed_memory_bytes(config, image_size)))


def needed_memory_bytes(config: StudyConfig, image_size: Size) -> int:
    """Estimate the memory of one evaluation, from the reference that needs more."""
    if not config.trains:
        return LEAST_MEMORY_BYTES
    return LEAST_MEMORY_BYTES + max(
        training_memory_bytes(
            architecture.resized(image_size, config.image_channels), config.training.batch_size
        )
        for architecture in REFERENCES.values()
    )


def load_predictor(
    config: StudyConfig,
    device: torch.device,
    image_size: Size,
    targets: Mapping[str, KnownTarget] | None = None,
) -> LatencyPredictor | None:
    """Load the latency predictor if an objective, a limit or the sampler of this study uses it.

    It is that of the study's first set-up.

    Args:
        config: The study's configuration.
        device: Device of its measurements here.
        image_size: Side of its images in pixels.
        targets: The machines on which set-ups measure, by name.

    Returns:
        The predictor; None where there is none, or the study does not use it.

    Raises:
        UserError: a predicted latency is wanted, and there is no predictor for this setting.
    """
    needed = "predicted_latency_ms" in config.wanted
    screens = config.search.sampler == "pareto" and LATENCY in config.objectives
    if not (needed or screens or LATENCY in config.limits):
        return None
    if config.load_space().own_blocks:
        if needed:
            require_listed(config.load_space())
        return None
    if config.image_channels == 1:  # calibrations are those of colour images
        if needed:
            raise UserError(
                "predicted_latency_ms: is not predicted for grey images; use latency_ms, which is "
                "measured"
            )
        return None
    setup = config.latency
    setting = Setting.of(setup, str(device), image_size)
    try:
        known = (targets or {})[setup.target] if setup.target else None
        found = LatencyPredictor.load(setting, known)
    except UserError:
        if needed:
            raise
        return None
    if found is None and needed:
        raise UserError(
            f"predicted_latency_ms: there is no latency predictor for {setting.words}; "
            f"make one with: {setting.remedy}"
        )
    return found
