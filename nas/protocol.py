"""The paper's training protocol for one batch and one split: settings, loading, loss, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Generator, Tensor

from nas.datasets.dataset import ImageDataset, ImageIndices
from nas.losses import LossTerms, psnr, vae_loss
from nas.own.losses import PAPER, find_loss
from nas.own.objectives import Judge
from nas.own.recipes import find_recipe
from nas.recipes import DEFAULT_RECIPE, RECIPES, Precision
from nas.ssim import Window, ms_ssim
from nas.vae import VAE
from profiling.batch_norms import calibrate_batch_norms
from profiling.environment import has_bfloat16
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.import_strings import is_import_string
from search_spaces.numbers import Count, Number, Seed

OnBatch = Callable[[int, int], None]
"""Called after each batch with (done, total) batches of the epoch, including validation."""


def _known_recipe(name: str) -> str:
    find_recipe(name)  # a `UserError` is a `ValueError`
    return name


def _known_loss(name: str) -> str:
    find_loss(name)
    return name


class TrainingConfig(BaseModel):
    """Training settings of candidates. Loss and budget are by default those of the paper.

    Attributes:
        recipe: Name of the recipe: optimiser, and the weights that are evaluated (`nas.recipes`);
            or the import string of one's own (`nas.own.recipes`).
        loss: `paper`, or the import string of one's own (`nas.own.losses`).
        epochs: Maximum number of epochs.
        batch_size: Images per step. A single image that remains is added to the last batch, because
            batch statistics need two images.
        learning_rate: Learning rate; by default that of the recipe.
        patience: Number of epochs without a lower validation loss after which training stops.
        ssim: Window of the structural similarity in the loss; the paper uses `uniform`.
        l1_weight: Weight of the mean absolute error.
        kl_weight: Weight of the Kullback-Leibler divergence, which is summed over the latent.
        evaluate_at: The latent that is evaluated: a sample, as in the paper, or the mean.
        precision: Of the training steps; by default that of the recipe. With `bfloat16` the network
            runs under autocast; with `auto` it does so where the device has instructions for it.
            The loss and all evaluations are in float32.
        channels_last: Memory layout. None means channels last on a CPU, where both reference models
            were measured to be faster with it, and contiguous on other devices.
        flip: Whether each training image is mirrored left to right with probability 1/2, anew in
            every epoch. Images that are evaluated are never mirrored.
        seed: Seed of the initial weights, the order of images, the sampling noise and the flips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Annotated[str, AfterValidator(_known_recipe)] = DEFAULT_RECIPE
    loss: Annotated[str, AfterValidator(_known_loss)] = PAPER
    epochs: Count = 10
    batch_size: Annotated[Count, Field(ge=2)] = 32
    learning_rate: Annotated[Number, Field(gt=0)] = RECIPES[DEFAULT_RECIPE].learning_rate
    patience: Count = 5
    ssim: Window = "gaussian"
    l1_weight: Annotated[Number, Field(ge=0)] = 0.5
    kl_weight: Annotated[Number, Field(ge=0)] = 1e-3
    evaluate_at: Literal["sample", "mean"] = "sample"
    precision: Precision = RECIPES[DEFAULT_RECIPE].precision
    channels_last: bool | None = None
    flip: bool = False
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_recipe(cls, given: Any) -> Any:
        name = given.get("recipe") if isinstance(given, dict) else None
        if isinstance(name, str) and (name in RECIPES or is_import_string(name)):
            recipe = find_recipe(name)
            defaults = {"learning_rate": recipe.learning_rate, "precision": recipe.precision}
            return {**defaults, **given}
        return given

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier versions did not have, where it is not used.

        Their stored settings then equal those of the same training today.
        """
        found: dict[str, Any] = dump(self)
        if not found.get("flip"):
            found.pop("flip", None)
        if found.get("loss") == PAPER:
            del found["loss"]
        return found


@dataclass(frozen=True)
class Quality:
    """Metrics of a model, each a mean over images.

    The first five are the terms of `nas.losses.LossTerms`. Lower is better for `total`,
    `reconstruction`, `l1` and `kl`; higher is better for `ssim`, `psnr_db` and `ms_ssim`.

    Attributes:
        variation: Variance between the reconstructions of different images, summed over pixels,
            over that of the images: near 0 where every image gets the same reconstruction. 1 for a
            single image.
        active_units: Number of units of the latent whose mean has a variance above 0.01 between
            images (Burda, Grosse and Salakhutdinov 2016).
        own: Values of objectives of the user's own, by name.
    """

    total: float
    reconstruction: float
    ssim: float
    l1: float
    kl: float
    psnr_db: float
    ms_ssim: float
    variation: float
    active_units: int
    own: Mapping[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """All values by name, those of the user's own objectives among them."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "own"}
        return {**found, **self.own}


def evaluate(
    model: VAE,
    dataset: ImageDataset,
    indices: ImageIndices,
    config: TrainingConfig,
    on_batch: OnBatch | None = None,
    judges: Mapping[str, Judge] | None = None,
) -> Quality:
    """Return the metrics of a model on some images of a data set, on the model's device.

    The latent is sampled as in training, from noise determined by `config.seed`, or is its mean:
    see `config.evaluate_at`. The model is evaluated in evaluation mode; its mode is restored
    afterwards. The judges get all images and their reconstructions at once, on the CPU.

    Raises:
        PartFailed: a judge raised an exception or returned no finite number.
    """
    device, training = next(model.parameters()).device, model.training
    noise = generator_for(config.seed, 0) if config.evaluate_at == "sample" else None
    batches, means = batches_of(indices, config.batch_size), list[Tensor]()
    latents, rebuilts, originals = _Variance(), _Variance(), _Variance()
    judged = list[tuple[Tensor, Tensor]]()
    model.eval()
    with torch.inference_mode():
        for done, part in enumerate(batches, start=1):
            images = load_batch(dataset, part, config, device)
            terms, rebuilt, mean = forward(model, images, config, noise)
            found = torch.stack([*terms, psnr(rebuilt, images), ms_ssim(rebuilt, images)])
            means.append(found.cpu().double() * len(part))
            latents.add(mean)
            rebuilts.add(rebuilt)
            originals.add(images)
            if judges:
                judged.append((images.cpu(), rebuilt.cpu()))
            if on_batch:
                on_batch(done, len(batches))
    model.train(training)
    varied = float(originals.value.sum())
    variation = float(rebuilts.value.sum()) / varied if varied > 0 else 1.0
    active = int((latents.value > _ACTIVE).sum())
    total, rebuilding, similarity, l1, kl, decibels, multi_scale = (
        torch.stack(means).sum(dim=0) / len(indices)
    ).tolist()
    own = _judged(judges, judged) if judges else {}
    return Quality(
        total, rebuilding, similarity, l1, kl, decibels, multi_scale, variation, active, own
    )


def _judged(
    judges: Mapping[str, Judge], batches: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    images, rebuilt = (torch.cat(parts).contiguous() for parts in zip(*batches, strict=True))
    with torch.random.fork_rng(devices=[]):  # a training uses no global random state
        return {name: judge(images, rebuilt) for name, judge in judges.items()}


_ACTIVE = 0.01
"""Variance of a unit's mean between images above which the unit is active (Burda et al. 2016)."""


class _Variance:
    """The variance between items of each value, added up batch by batch in float64."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Add values of shape (items, ...)."""
        # The GPU of an Apple processor has no float64.
        exact = (values.cpu() if values.device.type == "mps" else values).double()
        self._count += len(values)
        self._sum = self._sum.to(exact.device) + exact.sum(dim=0)
        self._squares = self._squares.to(exact.device) + exact.square().sum(dim=0)

    @property
    def value(self) -> Tensor:
        """The variance of each value, of the shape of one item."""
        return (self._squares / self._count - (self._sum / self._count).square()).clamp_min(0)


def recalibrate(model: VAE, dataset: ImageDataset, config: TrainingConfig) -> None:
    """Set the BatchNorm statistics of a model to those of its first training images.

    The running statistics of a training are those of earlier weights, and of other weights where
    the evaluated ones are an average.
    """
    device, noise = next(model.parameters()).device, generator_for(config.seed, 0)
    batches = batches_of(dataset.train, config.batch_size)[:CALIBRATION_BATCHES]

    def examples() -> Iterator[tuple[Tensor, Tensor]]:
        for part in batches:
            images = load_batch(dataset, part, config, device)
            yield images, _noise(model, images, noise)

    calibrate_batch_norms(model, examples())


CALIBRATION_BATCHES = 8
"""Number of training batches from which BatchNorm statistics are computed."""


def load_batch(
    dataset: ImageDataset, indices: ImageIndices, config: TrainingConfig, device: torch.device
) -> Tensor:
    """Return images in [0, 1] on the device, `(n, channels, height, width)`.

    They are copied to the device as bytes and converted there.
    """
    batch = torch.from_numpy(np.asarray(dataset.images[indices]))
    pinned = device.type == "cuda"  # only then a copy may go on while the program does
    if pinned:
        batch = batch.pin_memory()
    layout = memory_format(config, device)
    return batch.to(device, non_blocking=pinned, memory_format=layout).float().div_(255)


def flipped(images: Tensor, draw: Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2, in place; return the images.

    Args:
        images: `(n, channels, height, width)`.
        draw: Draws on the CPU, equally for every device.
    """
    chosen = (torch.rand(len(images), generator=draw) < 0.5).to(images.device)
    images[chosen] = images[chosen].flip(3)
    return images


def forward(
    model: VAE,
    images: Tensor,
    config: TrainingConfig,
    noise: Generator | None,
    *,
    half: bool = False,
) -> tuple[LossTerms, Tensor, Tensor]:
    """Return loss, reconstruction and latent mean in float32.

    Args:
        model: The model.
        images: The images.
        config: The training settings.
        noise: Draws the sample of the latent, equal on every device; None takes the mean.
        half: Whether the network runs under autocast to bfloat16.
    """
    eps = _noise(model, images, noise)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        outputs = model(images, eps)
    rebuilt, mean, log_variance = (output.float() for output in outputs)
    terms = vae_loss(
        rebuilt,
        images,
        mean,
        log_variance,
        window=config.ssim,
        l1_weight=config.l1_weight,
        kl_weight=config.kl_weight,
    )
    if own := find_loss(config.loss):
        terms = terms._replace(total=own(rebuilt, images, mean, log_variance))
    return terms, rebuilt, mean


def _noise(model: VAE, images: Tensor, noise: Generator | None) -> Tensor:
    shape = len(images), model.architecture.latent_size
    eps = torch.zeros(shape) if noise is None else torch.randn(shape, generator=noise)
    return eps.to(images.device)


def batches_of(indices: ImageIndices, size: int) -> list[ImageIndices]:
    """Split indices into batches of `size`; a single remaining image joins the last batch."""
    cuts = range(size, len(indices) - 1, size)
    return np.split(indices, cuts)


def generator_for(seed: int, epoch: int) -> Generator:
    """Return the generator of order and noise for an epoch, from 1; 0 is for evaluation."""
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def trains_in_half(config: TrainingConfig, device: torch.device) -> bool:
    """Whether training steps on this device run under autocast to bfloat16.

    Without instructions for it bfloat16 is emulated, which is slower than float32.
    """
    if config.precision == "auto":
        return has_bfloat16(device)
    return config.precision == "bfloat16"


def memory_format(config: TrainingConfig, device: torch.device) -> torch.memory_format:
    """Return the memory layout for these settings on this device."""
    wanted = config.channels_last
    last = device.type == "cpu" if wanted is None else wanted
    return torch.channels_last if last else torch.contiguous_format


def require_fit(architecture: Architecture, dataset: ImageDataset) -> None:
    """Check that a data set fits an architecture.

    Raises:
        UserError: the images have another shape, or a split is too small for training.
    """
    if dataset.images.shape[1:] != architecture.image_shape:
        raise UserError(
            f"data set {dataset.name!r} holds images of {dataset.images.shape[1:]}, the "
            f"architecture is for {architecture.image_shape} (channels, height, width)"
        )
    if len(dataset.train) < 2 or len(dataset.validation) < 1:
        raise UserError(
            f"data set {dataset.name!r} has {len(dataset.train)} training and "
            f"{len(dataset.validation)} validation images; at least 2 and 1 are needed"
        )
