"""From an architecture to its objectives: exact costs, measured ones, training.

An evaluation is a stream of growing `Findings`; whoever reads it may stop at any point, so a hard
limit never pays for an epoch.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas.artefacts import CHECKPOINT, WEIGHTS, full_disk_refused, write_whole
from nas.checkpoint import save_weights
from nas.datasets import ImageDataset
from nas.findings import Findings
from nas.latency import Meter, latency_metrics, one_image
from nas.objectives import TRAINED_OBJECTIVE
from nas.predict.predictor import LatencyPredictor
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
from profiling.fresh_process import ProcessEndedError
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from profiling.memory import peak_memory_bytes
from profiling.paired import PairedLatency
from search_spaces.architecture import Architecture

__all__ = ["CandidateFailed", "Evaluator"]

STATIC_COSTS: dict[str, Callable[[VAE, torch.Tensor, Complexity], float]] = {
    "params": lambda model, image, counts: counts.params,
    "macs": lambda model, image, counts: counts.macs,
    "flops": lambda model, image, counts: counts.flops,
    "peak_memory_bytes": lambda model, image, counts: peak_memory_bytes(model, image),
}
"""The objectives that are exact without running anything: from a model and one image, both on the
meta device, and what one pass counts there."""

MEASURERS = 3
"""Measuring processes that may end while they measure a candidate until it has failed."""

SHOWN_IMAGES = 8
"""Validation images that every candidate reconstructs for the report."""


@dataclass
class Evaluator:
    """Evaluates architectures on one data set and one device.

    Attributes:
        dataset: Images at the architectures' size; None where nothing is trained.
        training: The training protocol, the same for every candidate.
        latency: How latency is measured.
        device: Where training and measuring happen.
        wanted: Names of the objectives and limits to find; latency and training are skipped when
            nothing wanted needs them.
        artefacts: Folder for weights, checkpoints and reconstructions, by architecture digest.
        thread_count: Threads for training; None leaves torch's.
        on_batch: Called with (done, total) batches of the running epoch, at each batch boundary.
        anchor_ms: Latency of `original` that ratios to it are told in; None takes the one measured
            beside each candidate.
        predictor: Predicts latencies before anything is measured, where one was calibrated.
    """

    dataset: ImageDataset | None
    training: TrainingConfig
    latency: LatencyConfig
    device: torch.device
    wanted: Collection[str]
    artefacts: Path
    thread_count: int | None = None
    on_batch: Callable[[int, int], None] | None = None
    anchor_ms: float | None = None
    predictor: LatencyPredictor | None = None

    def __post_init__(self) -> None:
        self.lane, self.meter = Lane(str(self.device)), Meter(self.latency, self.device)

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield what is known after each step and epoch; the last findings are "done".

        What is `known` from an evaluation that ended before its time is not measured again; a
        training goes on from its checkpoint, and yields the epochs before it once more. The
        checkpoint stays: whoever records the result removes it afterwards.

        Raises:
            CandidateFailed: training diverged or ran out of memory.
            UserError: the artefacts cannot be written; the next candidate's could not either.
        """
        with (
            full_disk_refused(self.artefacts),
            out_of_memory_as_failure("evaluating it", self.device),
        ):
            findings = known or self._counted(architecture)
            yield findings
            if "latency_ms" in self.wanted and "latency_ms" not in findings.objectives:
                findings = self._measured(architecture, findings)
                yield findings
            if TRAINED_OBJECTIVE in self.wanted:
                for trained in self._trained(architecture, findings):
                    findings = trained
                    yield findings
            yield replace(findings, step="done")

    def _counted(self, architecture: Architecture) -> Findings:
        start = time.monotonic()
        costs, metrics = static_costs(architecture), {}
        if self.predictor:
            anchor_ms = self.anchor_ms or self.predictor.original_ms
            predicted_ms = float(self.predictor.predict_ms([architecture], anchor_ms)[0])
            costs["predicted_latency_ms"] = predicted_ms
            metrics["latency_ms_at_least"] = predicted_ms / self.predictor.margin
        spent_s = {"counting": time.monotonic() - start}
        return Findings("static", costs, metrics, timings_s=spent_s)

    def _measured(self, architecture: Architecture, known: Findings) -> Findings:
        start = time.monotonic()
        pair, waiting_s = self._measure(architecture)
        spent_s = {"latency": time.monotonic() - start - waiting_s, "waiting": waiting_s}
        folder = self.artefacts / architecture.digest
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "latency.json", json.dumps(pair.interleaved.to_dict()).encode())
        # A machine changes speed within minutes, a ratio hardly: so every candidate's time is told
        # on one scale, that of `original` when the study began.
        anchor_ms = self.anchor_ms or pair.reference.median_ms
        low, high = (anchor_ms * bound for bound in pair.ratio.interval)
        return replace(
            known,
            step="device",
            objectives={**known.objectives, "latency_ms": anchor_ms * pair.ratio.median},
            metrics={**known.metrics, **latency_metrics(pair)},
            intervals={**known.intervals, "latency_ms": (low, high)},
            contended=pair.contended,
            timings_s={**known.timings_s, **spent_s},
        )

    def _measure(self, architecture: Architecture) -> tuple[PairedLatency, float]:
        """Measure; a process that was killed, which need not be the candidate's fault, is replaced.

        Raises:
            CandidateFailed: it ended again and again.
        """
        for _ in range(MEASURERS - 1):
            with suppress(ProcessEndedError):
                return self.meter.measure(architecture)
        try:
            return self.meter.measure(architecture)
        except ProcessEndedError as error:
            raise CandidateFailed(f"while its latency was measured: {error}") from None

    def _trained(self, architecture: Architecture, known: Findings) -> Iterator[Findings]:
        assert self.dataset is not None, "training needs images"
        folder = self.artefacts / architecture.digest
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / CHECKPOINT
        with _removed_after_failure(checkpoint):
            with self._working():
                trainer = Trainer(architecture, self.dataset, self.training, self.device)
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
        """Have the lane and the threads of training for the body, which must not yield findings.

        Whoever reads them may take its time, or never come back.
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
        quality = asdict(trainer.best.validation)
        loss = quality.pop("reconstruction")
        metrics = {
            "total_loss": quality.pop("total"),
            **quality,
            "best_epoch": trainer.best.epoch,
            "images_per_s": trainer.history[-1].images_per_s,
        }
        return replace(
            known,
            step="training",
            objectives={**known.objectives, TRAINED_OBJECTIVE: loss},
            metrics={**known.metrics, **metrics},
            history=[history_row(result) for result in trainer.history],
            timings_s={**known.timings_s, **spent_s},
        )


def _write(trainer: Trainer, folder: Path) -> None:
    """Write the weights of the best epoch, and what they make of the shown images."""
    model = trainer.best_model()
    save_weights(model, folder / WEIGHTS)
    write_whole(folder / "reconstructions.npy", npy(reconstructions(model, trainer.dataset)))


@contextmanager
def _removed_after_failure(checkpoint: Path) -> Iterator[None]:
    try:
        yield
    except CandidateFailed:
        checkpoint.unlink(missing_ok=True)
        raise


def static_costs(architecture: Architecture) -> dict[str, float]:
    """Return what is exact without running anything: every objective named in `STATIC_COSTS`."""
    with torch.device("meta"):
        model, image = build_vae(architecture), one_image(architecture)
        counts = complexity(model, image)
        return {name: float(cost(model, image, counts)) for name, cost in STATIC_COSTS.items()}


def training_memory_bytes(architecture: Architecture, batch_size: int) -> int:
    """Estimate the memory that training takes: what every layer writes is kept for its gradient.

    Within 10 % of what training `modified` at 144 pixels was seen to take; weights come four times,
    with their gradients and Adam's two moments.
    """
    with torch.device("meta"):
        counts = complexity(build_vae(architecture), one_image(architecture))
    written = sum(row.bytes_written for row in counts.rows)
    return written * batch_size + 4 * 4 * counts.params


def shown_images(dataset: ImageDataset) -> npt.NDArray[np.uint8]:
    """Return the validation images that every candidate reconstructs for the report."""
    return dataset.images[dataset.validation[:SHOWN_IMAGES]]


def reconstructions(model: VAE, dataset: ImageDataset) -> npt.NDArray[np.uint8]:
    """Return the shown images through a model, from the latent mean, laid out like them."""
    device = next(model.parameters()).device
    pixels = torch.from_numpy(shown_images(dataset)).to(device)
    with torch.inference_mode():
        images = model.reconstruct(pixels.float() / 255)
    rounded = (images * 255).round().clamp(0, 255).to(torch.uint8)
    found: npt.NDArray[np.uint8] = rounded.cpu().numpy()
    return found


def npy(array: npt.NDArray[Any]) -> bytes:
    """Return the content of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def history_row(result: EpochResult) -> dict[str, float]:
    """Return an epoch as a trial's history has it."""
    return {
        "epoch": result.epoch,
        "train_loss": result.train_loss,
        "validation_loss": result.validation.total,
        TRAINED_OBJECTIVE: result.validation.reconstruction,
        "duration_s": result.duration_s,
    }
