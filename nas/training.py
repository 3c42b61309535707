"""The training of one model: an iterator over epochs that can be interrupted and resumed."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from nas.checkpoint import misfit, read_tensors, weights_digest, with_weights, write_tensors
from nas.compress.distillation import Guidance
from nas.datasets.dataset import ImageDataset, ImageIndices
from nas.findings import CandidateFailed
from nas.own.objectives import Judge
from nas.own.recipes import find_recipe
from nas.protocol import (
    OnBatch,
    Quality,
    TrainingConfig,
    batches_of,
    evaluate,
    flipped,
    forward,
    generator_for,
    load_batch,
    memory_format,
    recalibrate,
    require_fit,
    trains_in_half,
)
from nas.vae import VAE, build_vae
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

__all__ = [
    "CandidateFailed",
    "EpochResult",
    "OutOfMemory",
    "Quality",
    "Trainer",
    "TrainingConfig",
    "TrainingDiverged",
    "evaluate",
    "out_of_memory_as_failure",
]


class TrainingDiverged(CandidateFailed):
    """A loss is not finite. The message names epoch and batch."""


class OutOfMemory(CandidateFailed):
    """The device has too little memory for this candidate. The message names the step."""


_SIGNS_OF_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "defaultcpuallocator",
    "status_alloc_failed",
)
"""Parts of the messages of plain RuntimeErrors, in lower case: only CUDA has a type of its own."""


@contextmanager
def out_of_memory_as_failure(what: str, device: torch.device | str) -> Iterator[None]:
    """Raise `OutOfMemory` if the body runs out of memory; other exceptions are not changed.

    Args:
        what: The step, with which the message begins.
        device: The device that the message names.
    """
    try:
        yield
    except CandidateFailed:
        raise
    except (RuntimeError, MemoryError) as error:
        typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if typed or any(sign in str(error).lower() for sign in _SIGNS_OF_OUT_OF_MEMORY):
            raise OutOfMemory(f"{what}: out of memory on {device}") from error
        raise


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch. Times do not include the time of `on_batch`.

    Attributes:
        epoch: Number of the epoch, from 1.
        train_loss: Mean total loss of the training images, each with the weights of its step; the
            guidance of a teacher included.
        validation: Metrics of the weights at the end of the epoch.
        duration_s: Seconds of training and validation.
        images_per_s: Training throughput in images per second, without validation.
    """

    epoch: int
    train_loss: float
    validation: Quality
    duration_s: float
    images_per_s: float


class Trainer:
    """Trains one architecture; iterate over `epochs` for the results.

    On a CPU, the same seed, data and thread count give bitwise equal results, with or without
    interruptions. The global random state is neither used nor changed.

    Args:
        architecture: The architecture; its initial weights follow from `config.seed`.
        dataset: Images of the architecture's size.
        config: The training settings.
        device: The device to train on.
        start: Weights to start from instead of the initial ones, such as those of a pruned model.
        guidance: A further term of the loss, such as that of a teacher.
        judges: Objectives of the user's own that are judged after each epoch, by name.

    Raises:
        UserError: the images do not fit the architecture or a teacher, or a split is too small.
    """

    def __init__(
        self,
        architecture: Architecture,
        dataset: ImageDataset,
        config: TrainingConfig,
        device: torch.device | str = "cpu",
        *,
        start: Mapping[str, Tensor] | None = None,
        guidance: Guidance | None = None,
        judges: Mapping[str, Judge] | None = None,
    ) -> None:
        teachers = guidance.teachers if guidance else ()
        for one in (architecture, *(teacher.architecture for teacher in teachers)):
            require_fit(one, dataset)
        self.architecture, self.dataset, self.config = architecture, dataset, config
        self.device, self.judges = torch.device(device), judges or {}
        self.history: list[EpochResult] = []
        self.model = build_vae(architecture, config.seed)
        self._given: list[Any] = []  # what the weights of an epoch depend on besides the settings
        if start is not None:
            self.model.load_state_dict(start)
            self._given.append({"start": weights_digest(start)})
        self._half = trains_in_half(config, self.device)
        layout = memory_format(config, self.device)
        self.model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self._guidance = guidance
        if guidance:
            self._given.append({"guidance": guidance.identity})
            guidance.to(self.device, layout)
        _work_in_place(self.model)
        self._recipe = find_recipe(config.recipe)
        self._optimiser = self._recipe.optimiser(self.model, config.learning_rate)
        self._best_weights: dict[str, Tensor] = {}
        self._restored: deque[EpochResult] = deque()

    @property
    def best(self) -> EpochResult:
        """The epoch of the lowest total validation loss so far; of equal ones the first."""
        return min(self.history, key=lambda result: result.validation.total)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or the patience is exhausted."""
        done = len(self.history)
        return done >= self.config.epochs or (
            done > 0 and done - self.best.epoch >= self.config.patience
        )

    def epochs(
        self, checkpoint: Path | None = None, on_batch: OnBatch | None = None
    ) -> Iterator[EpochResult]:
        """Train until `finished` and yield the result of each epoch.

        The iteration may be stopped after any epoch and continued by another call. If an exception
        is raised within an epoch, also by `on_batch`, the weights of this trainer are those of an
        unfinished epoch: continue with a new trainer.

        Args:
            checkpoint: File in which the state is saved after each epoch. If it exists, a new
                trainer first yields the epochs in it, then continues. If it is damaged, a warning
                is given and training starts over. It may be deleted after the training.
            on_batch: Called after each batch with (done, total) batches of the epoch.

        Raises:
            TrainingDiverged: a loss is not finite.
            OutOfMemory: the device has too little memory.
            UserError: the checkpoint belongs to another training, or cannot be written.
        """
        if checkpoint and not self.history and not self._restored:
            self._restore(checkpoint)
        while self._restored:
            self.history.append(self._restored.popleft())
            yield self.history[-1]
        while not self.finished:
            result = self._epoch(len(self.history) + 1, on_batch)
            self.history.append(result)
            if self.best is result:
                self._best_weights = _copy(self.model.state_dict())
            if checkpoint:
                self._save(checkpoint)
            yield result

    def best_model(self) -> VAE:
        """Return the model of the `best` epoch on the device, in evaluation mode."""
        return with_weights(self.architecture, _copy(self._best_weights)).to(self.device)

    def _epoch(self, epoch: int, on_batch: OnBatch | None) -> EpochResult:
        noise, size = generator_for(self.config.seed, epoch), self.config.batch_size
        order = torch.randperm(len(self.dataset.train), generator=noise).numpy()
        train = batches_of(self.dataset.train[order], size)
        total = len(train) + len(batches_of(self.dataset.validation, size))
        watch, loss = _Watch(on_batch, total), 0.0
        self.model.train()
        self._optimiser.begin()
        with out_of_memory_as_failure(f"epoch {epoch} at batch size {size}", self.device):
            for number, indices in enumerate(train, start=1):
                value = self._step(indices, noise)
                _require_finite(value, f"epoch {epoch}, batch {number} of {len(train)}")
                loss += value * len(indices) / len(order)
                watch.tick()
            train_s = watch.seconds
            self._optimiser.end()
            if self._recipe.recalibrates:
                recalibrate(self.model, self.dataset, self.config)
            quality = evaluate(
                self.model,
                self.dataset,
                self.dataset.validation,
                self.config,
                watch.tick,
                self.judges,
            )
        _require_finite(quality.total, f"epoch {epoch}, validation")
        return EpochResult(epoch, loss, quality, watch.seconds, len(order) / train_s)

    def _step(self, indices: ImageIndices, noise: Generator) -> float:
        images = load_batch(self.dataset, indices, self.config, self.device)
        if self.config.flip:
            images = flipped(images, noise)
        terms, rebuilt, _ = forward(self.model, images, self.config, noise, half=self._half)
        loss = terms.total
        if self._guidance:
            window, l1_weight = self.config.ssim, self.config.l1_weight
            loss = loss + self._guidance.loss(rebuilt, images, window, l1_weight, half=self._half)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return loss.item()

    def _identity(self) -> str:
        """Return all that the weights of an epoch depend on."""
        config = self.config.model_dump(mode="json", exclude={"epochs", "patience"})
        counts = [len(self.dataset.train), len(self.dataset.validation)]
        data = [self.dataset.fingerprint, *counts]
        return json.dumps([self.architecture.digest, data, config, *self._given])

    def _save(self, path: Path) -> None:
        state, numbers = self._optimiser.state()
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        best = {f"best.{name}": value for name, value in self._best_weights.items()}
        metadata = {
            "training": self._identity(),
            "history": json.dumps([asdict(result) for result in self.history]),
            "optimiser": json.dumps(numbers),
        }
        write_tensors(path, state | weights | best, metadata)

    def _restore(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            tensors, metadata = read_tensors(path)
        except UserError as error:
            warnings.warn(f"{error}; training starts over", RuntimeWarning, stacklevel=3)
            return
        if "optimiser" not in metadata:
            text = f"{path}: written by an earlier version; training starts over"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            return
        if metadata.get("training") != self._identity():
            raise UserError(
                f"{path}: belongs to a training with another architecture, data or settings; "
                "remove it or choose another folder"
            )
        model, best = _under("model.", tensors), _under("best.", tensors)
        try:
            history = [_result(one) for one in json.loads(metadata["history"])]
            if found := misfit(self.model.state_dict(), model) or misfit(model, best):
                raise ValueError(found)
            self._optimiser.restore(tensors, json.loads(metadata["optimiser"]))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            text = f"{path}: damaged ({str(error)[:80]!r}); training starts over"
            warnings.warn(text, RuntimeWarning, stacklevel=3)
            return
        self.model.load_state_dict(model)
        self._best_weights = best
        self._restored.extend(history)


def _result(stored: Mapping[str, Any]) -> EpochResult:
    return EpochResult(**{**stored, "validation": Quality(**stored["validation"])})


class _Watch:
    """Counts the batches of an epoch and its seconds, without the time of `on_batch`."""

    def __init__(self, on_batch: OnBatch | None, total: int) -> None:
        self._on_batch, self._total, self._done = on_batch, total, 0
        self._start = time.perf_counter()

    def tick(self, *_progress_of_one_split: int) -> None:
        self._done += 1
        left = time.perf_counter()
        if self._on_batch:
            self._on_batch(self._done, self._total)
        self._start += time.perf_counter() - left

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


def _work_in_place(model: VAE) -> None:
    """Let activations overwrite their input: training dense blocks then takes 25 % less memory.

    The input of each activation is the output of a BatchNorm or a linear layer, which do not need
    it for their gradients. The gradients of these three functions follow from their outputs. Only
    models in training are changed, because hooks elsewhere may need the inputs.
    """
    for module in model.modules():
        if isinstance(module, nn.ELU | nn.ReLU | nn.LeakyReLU):
            module.inplace = True


def _copy(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies of the weights on the CPU."""
    layout = torch.contiguous_format
    return {n: t.to("cpu", copy=True, memory_format=layout) for n, t in weights.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _require_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"{where}: the loss is {loss}")
