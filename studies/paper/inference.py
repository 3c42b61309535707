"""Run trained models: latents and reconstructions of images, and the loss of each image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nas.datasets import ImageDataset
from nas.datasets.dataset import ImageIndices
from nas.losses import vae_loss
from nas.protocol import batches_of, generator_for, load_batch
from nas.training import TrainingConfig
from nas.vae import VAE
from profiling.progress import Progress
from studies.paper.stored import Array, Arrays

LOSS_TERMS = ("total", "reconstruction", "ssim", "l1", "kl")
"""The loss and its terms, in the order of `nas.losses.LossTerms`."""


def examine(
    model: VAE,
    dataset: ImageDataset,
    indices: ImageIndices,
    config: TrainingConfig,
    progress: Progress,
) -> Arrays:
    """Return latents `mean` and `log_variance`, `(n, latent)`, and each of `LOSS_TERMS`, `(n,)`.

    The latent is sampled as in validation, so that the mean losses compare with the paper's curves.
    """
    noise, device = generator_for(config.seed, 0), device_of(model)
    found: dict[str, list[Array]] = {name: [] for name in ("mean", "log_variance", *LOSS_TERMS)}
    for part in _reporting(batches_of(indices, config.batch_size), progress):
        images = load_batch(dataset, part, config, device)
        eps = torch.randn(len(images), model.architecture.latent_size, generator=noise).to(device)
        with torch.inference_mode():
            rebuilt, mean, log_variance = model(images, eps)
            losses = _losses(images, rebuilt, mean, log_variance, config)
        found["mean"].append(mean.float().cpu().numpy())
        found["log_variance"].append(log_variance.float().cpu().numpy())
        for name, column in zip(LOSS_TERMS, losses.T, strict=True):
            found[name].append(column)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def latent_means(
    model: VAE,
    dataset: ImageDataset,
    indices: ImageIndices,
    config: TrainingConfig,
    progress: Progress,
) -> Array:
    """Return the latent mean of each image, float32 `(n, latent)`."""
    means = []
    for part in _reporting(batches_of(indices, config.batch_size), progress):
        means.append(encode(model, load_batch(dataset, part, config, device_of(model))))
    return np.concatenate(means)


def encode(model: VAE, images: Tensor) -> Array:
    """Return the latent means `(n, latent)` of images `(n, channels, height, width)` in [0, 1]."""
    with torch.inference_mode():
        return np.asarray(model.encode(images)[0].float().cpu().numpy())


def decode(model: VAE, latents: Array, batch_size: int, progress: Progress | None = None) -> Array:
    """Return the images of latents `(n, latent)`: float32 `(n, channels, height, width)`."""
    parts = [latents[i : i + batch_size] for i in range(0, len(latents), batch_size)]
    images = []
    with torch.inference_mode():
        for part in _reporting(parts, progress):
            rebuilt = model.decode(torch.from_numpy(np.float32(part)).to(device_of(model)))
            images.append(rebuilt.float().cpu().contiguous().numpy())
    return np.concatenate(images)


def as_bytes(images: Array) -> Array:
    """Return images in [0, 1] as uint8."""
    return np.asarray((np.clip(images, 0, 1) * 255).round(), dtype=np.uint8)


def device_of(model: VAE) -> torch.device:
    """Return the device of a model."""
    return next(model.parameters()).device


def _losses(
    images: Tensor, rebuilt: Tensor, mean: Tensor, log_variance: Tensor, config: TrainingConfig
) -> Array:
    rows = []
    for one in range(len(images)):
        it = slice(one, one + 1)
        terms = vae_loss(
            rebuilt[it].float(),
            images[it],
            mean[it].float(),
            log_variance[it].float(),
            window=config.ssim,
            l1_weight=config.l1_weight,
            kl_weight=config.kl_weight,
        )
        rows.append(torch.stack(list(terms)))
    return np.asarray(torch.stack(rows).cpu().numpy())


def _reporting(parts: list[Array], progress: Progress | None) -> Iterator[Array]:
    for done, part in enumerate(parts):
        if progress:
            progress(done, len(parts))
        yield part
