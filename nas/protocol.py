"""The paper's training protocol for one batch and one split: settings, loading, loss, metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from nas.datasets.dataset import ImageDataset, ImageIndices
from nas.losses import LossTerms, Window, ms_ssim, psnr, vae_loss
from nas.vae import VAE
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.numbers import Count, Number, Seed

OnBatch = Callable[[int, int], None]
"""Called after each batch with (done, total) batches of the epoch, including validation."""


class TrainingConfig(BaseModel):
    """Training settings of candidates; the defaults are those of the paper.

    Attributes:
        epochs: Maximum number of epochs.
        batch_size: Images per step. A single image that remains is added to the last batch, because
            batch statistics need two images.
        learning_rate: Learning rate of Adam.
        patience: Number of epochs without a lower validation loss after which training stops.
        ssim: Window of the structural similarity in the loss; the paper uses `uniform`.
        l1_weight: Weight of the mean absolute error.
        kl_weight: Weight of the Kullback-Leibler divergence, which is summed over the latent.
        precision: With `bfloat16` the network runs under autocast; the loss is always float32.
        channels_last: Memory layout. None means channels last on a CPU, where both reference models
            were measured to be faster with it, and contiguous on other devices.
        seed: Seed of the initial weights, the order of images and the sampling noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Count = 10
    batch_size: Annotated[Count, Field(ge=2)] = 32
    learning_rate: Annotated[Number, Field(gt=0)] = 1e-4
    patience: Count = 5
    ssim: Window = "gaussian"
    l1_weight: Annotated[Number, Field(ge=0)] = 0.5
    kl_weight: Annotated[Number, Field(ge=0)] = 1e-3
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool | None = None
    seed: Seed = 0


@dataclass(frozen=True)
class Quality:
    """Metrics of a model, each a mean over images.

    The first five are the terms of `nas.losses.LossTerms`. Lower is better for `total`,
    `reconstruction`, `l1` and `kl`; higher is better for `ssim`, `psnr_db` and `ms_ssim`.
    """

    total: float
    reconstruction: float
    ssim: float
    l1: float
    kl: float
    psnr_db: float
    ms_ssim: float


def evaluate(
    model: VAE,
    dataset: ImageDataset,
    indices: ImageIndices,
    config: TrainingConfig,
    on_batch: OnBatch | None = None,
) -> Quality:
    """Return the metrics of a model on some images of a data set, on the model's device.

    The latent is sampled as in training, from noise determined by `config.seed`. The model is
    evaluated in evaluation mode; its mode is restored afterwards.
    """
    device, training = next(model.parameters()).device, model.training
    noise, batches = generator_for(config.seed, 0), batches_of(indices, config.batch_size)
    sums = torch.zeros(len(fields(Quality)), dtype=torch.float64)
    model.eval()
    with torch.inference_mode():
        for done, part in enumerate(batches, start=1):
            images = load_batch(dataset, part, config, device)
            terms, rebuilt = forward(model, images, config, noise)
            means = torch.stack([*terms, psnr(rebuilt, images), ms_ssim(rebuilt, images)])
            sums += means.cpu() * len(part)
            if on_batch:
                on_batch(done, len(batches))
    model.train(training)
    return Quality(*(sums / len(indices)).tolist())


def load_batch(
    dataset: ImageDataset, indices: ImageIndices, config: TrainingConfig, device: torch.device
) -> Tensor:
    """Return images in [0, 1] on the device, `(n, channels, height, width)`.

    They are copied to the device as bytes and converted there.
    """
    batch = torch.from_numpy(np.asarray(dataset.images[indices]))
    if device.type == "cuda":
        batch = batch.pin_memory()
    layout = memory_format(config, device)
    return batch.to(device, non_blocking=True, memory_format=layout).float().div_(255)


def forward(
    model: VAE, images: Tensor, config: TrainingConfig, noise: Generator
) -> tuple[LossTerms, Tensor]:
    """Return loss and reconstruction in float32. The noise is the same on every device."""
    eps = torch.randn(len(images), model.architecture.latent_size, generator=noise)
    half = config.precision == "bfloat16"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        outputs = model(images, eps.to(images.device, non_blocking=True))
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
    return terms, rebuilt


def batches_of(indices: ImageIndices, size: int) -> list[ImageIndices]:
    """Split indices into batches of `size`; a single remaining image joins the last batch."""
    cuts = range(size, len(indices) - 1, size)
    return np.split(indices, cuts)


def generator_for(seed: int, epoch: int) -> Generator:
    """Return the generator of order and noise for an epoch, from 1; 0 is for evaluation."""
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


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
    size, channels = architecture.image_size, architecture.image_channels
    if dataset.images.shape[1:] != (channels, size, size):
        raise UserError(
            f"data set {dataset.name!r} holds images of {dataset.images.shape[1:]}, the "
            f"architecture is for {(channels, size, size)} (channels, height, width)"
        )
    if len(dataset.train) < 2 or len(dataset.validation) < 1:
        raise UserError(
            f"data set {dataset.name!r} has {len(dataset.train)} training and "
            f"{len(dataset.validation)} validation images; at least 2 and 1 are needed"
        )
