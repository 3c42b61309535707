"""Train an architecture with another seed, and evaluate it on the validation and test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch

from nas.artefacts import WEIGHTS
from nas.checkpoint import load_vae
from nas.datasets import ImageDataset, load_dataset
from nas.evaluate import Evaluator
from nas.findings import QUALITY_FIELDS, Findings
from nas.objectives import OBJECTIVES, is_own
from nas.protocol import OnBatch, Quality, evaluate
from profiling.allocator import tune_allocator
from profiling.environment import threads
from search_spaces.architecture import Architecture
from search_spaces.sizes import Size
from studies.config.parts import require_parts
from studies.config.study import StudyConfig
from studies.record.records import SeedRun
from studies.record.trial import ON_TEST

_SEED = "seed"

_RECORDED = {field: name for name, field in QUALITY_FIELDS.items()}


def asked(seed: int) -> Findings:
    """Return the findings by which an evaluator is told the seed of a training."""
    return Findings(metrics={_SEED: seed})


def run_of(findings: Findings, seed: int) -> SeedRun:
    """Return the training whose evaluation ended with these findings."""
    values = {**findings.metrics, **findings.objectives}
    names = [_RECORDED.get(one.name, one.name) for one in fields(Quality)]
    names += [name for name in findings.objectives if is_own(name)]
    return SeedRun(
        seed=seed,
        validation={name: values[name] for name in names if name in values},
        test={
            name.removesuffix(ON_TEST): value
            for name, value in values.items()
            if name.endswith(ON_TEST)
        },
        best_epoch=int(values["best_epoch"]),
        duration_s=findings.timings_s.get("training", 0.0),
    )


def renamed(quality: Mapping[str, float]) -> dict[str, float]:
    """Return the fields of a `Quality` by their names in a study's record."""
    return {_RECORDED.get(name, name): value for name, value in quality.items()}


@dataclass(frozen=True)
class SeedEvaluator:
    """Trains architectures with seeds of their own, as the search trained them otherwise.

    Attributes:
        config: The study's configuration.
        dataset: Its images.
        device: Device of the trainings.
        folder: Folder of the further trainings, with one folder per seed.
        thread_count: Threads of a training.
        on_batch: Called with (done, total) batches of the current epoch.
    """

    config: StudyConfig
    dataset: ImageDataset
    device: torch.device
    folder: Path
    thread_count: int
    on_batch: OnBatch

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield the findings after each epoch; the last ones include the test images.

        Args:
            architecture: The architecture.
            known: The result of `asked`, which has the seed.

        Raises:
            CandidateFailed: the training diverged or ran out of memory.
            UserError: the artefacts cannot be written.
        """
        assert known is not None, "the seed is in the known findings"
        training = self.config.training.model_copy(update={"seed": int(known.metrics[_SEED])})
        folder = self.folder / str(training.seed)
        evaluator = Evaluator(
            dataset=self.dataset,
            training=training,
            latency=self.config.latency,
            device=self.device,
            wanted={n for n in self.config.objectives if OBJECTIVES[n].cost == "training"},
            artefacts=folder,
            thread_count=self.thread_count,
            on_batch=self.on_batch,
        )
        for findings in evaluator(architecture, Findings()):
            if findings.step != "done":
                yield findings
                continue
            tested = self._on_test(evaluator, folder / architecture.digest / WEIGHTS)
            yield replace(findings, metrics={**findings.metrics, **tested})

    def _on_test(self, evaluator: Evaluator, weights: Path) -> Mapping[str, float]:
        """Return the metrics of the best epoch on the test images; empty if there are none."""
        images = self.dataset.test
        if not len(images):
            return {}
        lane, model = evaluator.lane, load_vae(weights).to(self.device)
        with lane.training(), threads(self.thread_count):
            quality = evaluate(
                model,
                self.dataset,
                images,
                evaluator.training,
                lambda done, total: lane.enter(),
                evaluator.judges,
            )
        return {f"{name}{ON_TEST}": value for name, value in renamed(quality.values).items()}


@dataclass(frozen=True)
class SeedEvaluatorMaker:
    """Makes the evaluator in the calling process; it is picklable.

    Attributes:
        config: The study's configuration.
        image_size: Size of the images in pixels.
        device: Device of the trainings, such as `cpu`.
        folder: Folder of the further trainings.
        thread_count: Threads of a training.
        sources: Digests of the sources of the user's own parts, as for `EvaluatorMaker`.
    """

    config: StudyConfig
    image_size: Size
    device: str
    folder: Path
    thread_count: int
    sources: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, on_batch: OnBatch) -> SeedEvaluator:
        """Return the evaluator for a worker process, with images from the cache."""
        tune_allocator()
        require_parts(self.config, self.sources)
        channels = self.config.image_channels
        return self.make(
            on_batch, load_dataset(self.config.data, self.image_size, channels=channels)
        )

    def make(self, on_batch: OnBatch, dataset: ImageDataset) -> SeedEvaluator:
        """Return the evaluator for images that are loaded already."""
        device = torch.device(self.device)
        return SeedEvaluator(self.config, dataset, device, self.folder, self.thread_count, on_batch)
