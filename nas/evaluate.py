"""Evaluate an architecture: static costs, latency, training.

An evaluation is a stream of growing `Findings`. The reader may stop at any point, so that a
candidate above a hard limit is never trained.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.artefacts import (
    CHECKPOINT,
    PRIOR_SAMPLES,
    RECONSTRUCTIONS,
    WEIGHTS,
    folder_or_refuse,
    full_disk_refused,
    write_or_refuse,
)
from nas.checkpoint import save_weights
from nas.datasets import ImageDataset
from nas.findings import Findings
from nas.latency import Meter, latency_metrics
from nas.objectives import TRAINED_OBJECTIVE, latency_in, measures_latency, trained_objectives
from nas.own.objectives import judges, own_objectives, own_static_costs
from nas.predict.predictor import LatencyPredictor
from nas.protocol import Quality
from nas.setups import EngineRefused, SetUp
from nas.timed_models import TimedImages, timed_model
from nas.training import (
    CandidateFailed,
    EpochResult,
    Trainer,
    TrainingConfig,
    out_of_memory_as_failure,
)
from nas.vae import VAE, build_vae
from profiling.complexity import Complexity, complexity
from profiling.environment import threads
from profiling.fresh_process import ProcessEndedError, begun_again
from profiling.lane import Lane
from profiling.memory import peak_memory_bytes
from profiling.paired import PairedLatency
from profiling.target.client import KnownTarget
from search_spaces.architecture import Architecture

__all__ = ["CandidateFailed", "Evaluator"]

STATIC_COSTS: dict[str, Callable[[VAE, torch.Tensor, Complexity], float]] = {
    "params": lambda model, image, counts: counts.params,
    "macs": lambda model, image, counts: counts.macs,
    "flops": lambda model, image, counts: counts.flops,
    "peak_memory_bytes": lambda model, image, counts: peak_memory_bytes(model, image),
}
"""Objectives that are exact without running the model, by name.

Each function takes a model and one image, both on the meta device, and the counts of one pass.
"""

TRAINED_VALUES: dict[str, Callable[[Quality], float]] = {
    "reconstruction_loss": lambda quality: quality.reconstruction,
    "total_loss": lambda quality: quality.total,
    "kl": lambda quality: quality.kl,
    "psnr_db": lambda quality: quality.psnr_db,
    "ms_ssim": lambda quality: quality.ms_ssim,
    "ssim": lambda quality: quality.ssim,
    "l1": lambda quality: quality.l1,
}
"""Objectives found by training, by name, from the metrics of a model."""

SHOWN_IMAGES = 8
"""Number of validation images that every candidate reconstructs for the report."""

_PRIOR_SEED = 0
"""Seed of the latents that are drawn from the prior for the report."""


@dataclass
class Evaluator:
    """Evaluates architectures on one data set and one device.

    Attributes:
        dataset: Images at the architectures' size; None where nothing is trained.
        training: The training protocol, equal for every candidate.
        latency: What is timed, and how.
        setups: Further set-ups in which latency is measured, by name.
        device: Device of trainings and measurements.
        wanted: Names of the objectives and limited values to compute; latency and training are
            skipped if none of them needs them.
        artefacts: Folder for weights, checkpoints and reconstructions, by architecture digest.
        thread_count: Threads of a training; None keeps torch's setting.
        on_batch: Called with (done, total) batches of the current epoch, at each batch boundary.
        anchors_ms: Latency of `original` in each set-up, by which ratios are multiplied to get
            milliseconds; "" is the first one. Where it is missing, the latency that is measured
            beside each candidate is taken.
        predictor: Predicts latencies before any measurement; None where none is calibrated.
        targets: The machines on which set-ups measure, by the names that set-ups give them.
    """

    dataset: ImageDataset | None
    training: TrainingConfig
    latency: SetUp
    device: torch.device
    wanted: Collection[str]
    artefacts: Path
    thread_count: int | None = None
    on_batch: Callable[[int, int], None] | None = None
    anchors_ms: Mapping[str, float] = field(default_factory=dict)
    setups: Mapping[str, SetUp] = field(default_factory=dict)
    predictor: LatencyPredictor | None = None
    targets: Mapping[str, KnownTarget] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images = TimedImages.of(self.dataset) if self.dataset else None
        self.lane = Lane(str(self.device))
        setups = {"": self.latency, **self.setups} if measures_latency(self.wanted) else {}
        self.meters = {
            name: Meter(one, self.targets[one.target] if one.target else self.device, images)
            for name, one in setups.items()
        }
        self.measured = own_objectives(self.wanted, "device")
        self.judges = judges(self.wanted)

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield the findings after each step and epoch; the last ones have `step == "done"`.

        A training resumes from its checkpoint and yields the earlier epochs again. The checkpoint
        stays: the caller removes it after recording the result.

        Args:
            architecture: The candidate.
            known: Findings of an earlier evaluation that did not finish; they are not measured
                again.

        Raises:
            CandidateFailed: the training diverged or ran out of memory, the backend cannot run the
                candidate, or a part of the user's own failed.
            UserError: the artefacts cannot be written; this ends the study.
            TargetError: a target cannot be used; this ends the study.
        """
        with (
            full_disk_refused(self.artefacts),
            out_of_memory_as_failure("evaluating it", self.device),
        ):
            findings = known or self._counted(architecture)
            yield findings
            for setup in self.meters:
                if latency_in(setup) not in findings.objectives:
                    findings = self._measured(architecture, findings, setup)
                    yield findings
            if self.measured.keys() - findings.objectives.keys():
                findings = self._measured_by_own(architecture, findings)
                yield findings
            if trained_objectives(self.wanted):
                for trained in self._trained(architecture, findings):
                    findings = trained
                    yield findings
            yield replace(findings, step="done")

    def _counted(self, architecture: Architecture) -> Findings:
        start = time.monotonic()
        costs, metrics = static_costs(architecture), {}
        costs |= own_static_costs(architecture, self.wanted)
        if self.predictor:
            anchor_ms = self.anchors_ms.get("") or self.predictor.original_ms
            predicted_ms = float(self.predictor.predict_ms([architecture], anchor_ms)[0])
            costs["predicted_latency_ms"] = predicted_ms
            metrics["latency_ms_at_least"] = predicted_ms / self.predictor.margin
        spent_s = {"counting": time.monotonic() - start}
        return Findings("static", costs, metrics, timings_s=spent_s)

    def _measured(self, architecture: Architecture, known: Findings, setup: str) -> Findings:
        start = time.monotonic()
        pair, waiting_s = self._measure(architecture, setup)
        spent_s = {"latency": time.monotonic() - start - waiting_s, "waiting": waiting_s}
        spent_s = {name: one + known.timings_s.get(name, 0.0) for name, one in spent_s.items()}
        folder = self.artefacts / architecture.digest
        folder_or_refuse(folder)
        file = folder / (f"latency-{setup}.json" if setup else "latency.json")
        write_or_refuse(file, json.dumps(pair.interleaved.to_dict()).encode())
        # A machine's speed changes within minutes, a ratio hardly. So all latencies are ratios
        # times one number: the latency of `original` when the study began.
        anchor_ms, name = self.anchors_ms.get(setup) or pair.reference.median_ms, latency_in(setup)
        low, high = (anchor_ms * bound for bound in pair.ratio.interval)
        return replace(
            known,
            step="device",
            objectives={**known.objectives, name: anchor_ms * pair.ratio.median},
            metrics={**known.metrics, **latency_metrics(pair, setup)},
            intervals={**known.intervals, name: (low, high)},
            contended=known.contended or pair.contended,
            timings_s={**known.timings_s, **spent_s},
        )

    def _measured_by_own(self, architecture: Architecture, known: Findings) -> Findings:
        """Call the user's own measurements with the untrained network, while the lane is held."""
        start, waited_s = time.monotonic(), self.lane.waited_s
        images = self._timed_images(architecture)
        with threads(self.latency.threads):
            with self.lane.training():
                model, _ = timed_model(architecture, images, self.device)
                batch = images.tensor(self.device, self.latency.batch)[: self.latency.batch]
            with self.lane.measuring(), torch.inference_mode():
                values = {name: own.value(model, batch) for name, own in self.measured.items()}
        waiting_s = self.lane.waited_s - waited_s
        spent_s = {"measuring": time.monotonic() - start - waiting_s}
        return replace(
            known,
            step="device",
            objectives={**known.objectives, **values},
            timings_s={**known.timings_s, **spent_s},
        )

    def _timed_images(self, architecture: Architecture) -> TimedImages:
        if self.dataset:
            return TimedImages.of(self.dataset)
        return TimedImages.noise(architecture.image_size, architecture.image_channels)

    def _measure(self, architecture: Architecture, setup: str) -> tuple[PairedLatency, float]:
        """Measure, and replace a measuring process that ended: the cause may not be the candidate.

        Raises:
            CandidateFailed: several processes ended, or the backend cannot run the candidate.
        """
        try:
            return begun_again(self.meters[setup].measure, architecture)
        except (ProcessEndedError, EngineRefused) as error:
            raise CandidateFailed(f"while its latency was measured: {error}") from None

    def _trained(self, architecture: Architecture, known: Findings) -> Iterator[Findings]:
        assert self.dataset is not None, "training needs images"
        folder = self.artefacts / architecture.digest
        folder_or_refuse(folder)
        checkpoint = folder / CHECKPOINT
        with _removed_after_failure(checkpoint):
            with self._working():
                trainer = Trainer(
                    architecture, self.dataset, self.training, self.device, judges=self.judges
                )
                training_s, waited_s = 0.0, self.lane.waited_s
            epochs = trainer.epochs(checkpoint, on_batch=self._at_batch)
            while (result := self._next(epochs)) is not None:
                training_s += result.duration_s
                waiting_s = known.timings_s.get("waiting", 0.0) + self.lane.waited_s - waited_s
                spent = {"training": training_s, "waiting": waiting_s}
                yield self._with_training(known, trainer, spent)
            with self._working():
                _write(trainer, folder)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Hold the lane and set the threads of training for a body that yields no findings.

        The reader of findings may take long, or never resume the evaluation.
        """
        with self.lane.training(), threads(self.thread_count or torch.get_num_threads()):
            yield

    def _next(self, epochs: Iterator[EpochResult]) -> EpochResult | None:
        with self._working():
            return next(epochs, None)

    def _at_batch(self, done: int, total: int) -> None:
        self.lane.enter()
        if self.on_batch:
            self.on_batch(done, total)

    def _with_training(
        self, known: Findings, trainer: Trainer, spent_s: Mapping[str, float]
    ) -> Findings:
        best = trainer.best.validation
        # The others are among the objectives.
        quality = {n: v for n, v in best.values.items() if n not in ("reconstruction", *best.own)}
        metrics = {
            "total_loss": quality.pop("total"),
            **quality,
            "best_epoch": trainer.best.epoch,
            "images_per_s": trainer.history[-1].images_per_s,
        }
        return replace(
            known,
            step="training",
            objectives={
                **known.objectives,
                **trained_values(trainer.best.validation, self.wanted),
            },
            metrics={**known.metrics, **metrics},
            history=[history_row(result, self.wanted) for result in trainer.history],
            timings_s={**known.timings_s, **spent_s},
        )


def _write(trainer: Trainer, folder: Path) -> None:
    """Write the weights of the best epoch, and the images decoded with them."""
    model = trainer.best_model()
    save_weights(model, folder / WEIGHTS)
    write_pictures(model, trainer.dataset, folder)


@contextmanager
def _removed_after_failure(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except CandidateFailed:
        checkpoint.unlink(missing_ok=True)
        raise


def static_costs(architecture: Architecture) -> dict[str, float]:
    """Return the value of each objective in `STATIC_COSTS`; nothing is run.

    Raises:
        PartFailed: a block of the user's own failed.
    """
    with torch.device("meta"):
        model, image = build_vae(architecture), _one_image(architecture)
        if architecture.own_blocks:  # it says what is wrong with a block
            model.eval()(image)
        counts = complexity(model, image)
        return {name: float(cost(model, image, counts)) for name, cost in STATIC_COSTS.items()}


def training_memory_bytes(architecture: Architecture, batch_size: int) -> int:
    """Estimate the memory of training in bytes.

    The estimate is the output of all layers, which is kept for their gradients, and four times the
    weights: with their gradients and Adam's two moments. It was within 10 % of the measured memory
    for `modified` at 144 pixels.
    """
    with torch.device("meta"):
        counts = complexity(build_vae(architecture), _one_image(architecture))
    written = sum(row.bytes_written for row in counts.rows)
    return written * batch_size + 4 * 4 * counts.params


def _one_image(architecture: Architecture) -> torch.Tensor:
    return torch.empty(1, *architecture.image_shape)


def shown_images(dataset: ImageDataset) -> npt.NDArray[np.uint8]:
    """Return the validation images that every candidate reconstructs.

    The result is uint8, (images, channels, height, width).
    """
    return dataset.images[dataset.validation[:SHOWN_IMAGES]]


def reconstructions(model: VAE, dataset: ImageDataset) -> npt.NDArray[np.uint8]:
    """Return a model's reconstructions of the shown images, from the latent mean.

    The result has the shape and type of `shown_images`: uint8, (images, channels, height, width).
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(shown_images(dataset)).to(device)
    with torch.inference_mode():
        return _as_bytes(model.reconstruct(pixels.float() / 255))


def prior_samples(model: VAE, count: int = SHOWN_IMAGES) -> npt.NDArray[np.uint8]:
    """Return what a model decodes from `count` latents that are drawn from N(0, 1).

    Models of equal latent size decode the same latents. The result is uint8, (images, channels,
    height, width).
    """
    generator = torch.Generator().manual_seed(_PRIOR_SEED)
    with torch.inference_mode():
        return _as_bytes(model.sample(count, generator))


def write_pictures(model: VAE, dataset: ImageDataset, folder: Path) -> None:
    """Write the images of a model that a report shows: samples from the prior, reconstructions.

    Raises:
        UserError: a file cannot be written.
    """
    rebuilt = reconstructions(model, dataset)
    write_or_refuse(folder / PRIOR_SAMPLES, npy(prior_samples(model, len(rebuilt))))
    write_or_refuse(folder / RECONSTRUCTIONS, npy(rebuilt))


def _as_bytes(images: torch.Tensor) -> npt.NDArray[np.uint8]:
    rounded = (images * 255).round().clamp(0, 255).to(torch.uint8)
    found: npt.NDArray[np.uint8] = rounded.cpu().numpy()
    return found


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return the content of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def trained_values(quality: Quality, wanted: Collection[str] = ()) -> dict[str, float]:
    """Return the reconstruction loss and the other trained objectives in `wanted`, by name."""
    shown = {TRAINED_OBJECTIVE, *wanted}
    known = {name: value(quality) for name, value in TRAINED_VALUES.items() if name in shown}
    return {**known, **{name: value for name, value in quality.own.items() if name in shown}}


def history_row(result: EpochResult, wanted: Collection[str] = ()) -> dict[str, float]:
    """Return the values of an epoch for a trial's history, with the objectives in `wanted`."""
    return {
        "epoch": result.epoch,
        "train_loss": result.train_loss,
        "validation_loss": result.validation.total,
        **trained_values(result.validation, wanted),
        "duration_s": result.duration_s,
    }
