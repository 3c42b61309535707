"""What lower precisions need, and what they cost: calibration images, and the loss on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.datasets.dataset import ImageDataset, ImageIndices
from nas.losses import vae_loss
from nas.vae import VAE
from profiling.latency import batches_of

CALIBRATION_IMAGES = 128
"""Largest number of training images from which int8 takes the ranges of values."""

JUDGED_IMAGES = 256
"""Largest number of validation images on which the loss is computed."""


def calibration_of(model: VAE, dataset: ImageDataset) -> tuple[Tensor, Tensor]:
    """Return training images `(n, channels, size, size)` and noise `(n, latent)` for each."""
    images = _images(dataset, dataset.train[:CALIBRATION_IMAGES])
    draw = torch.Generator().manual_seed(0)
    return images, torch.randn(len(images), model.architecture.latent_size, generator=draw)


def loss_cost(
    model: VAE, dataset: ImageDataset, batch: int, device: torch.device
) -> Callable[[Callable[..., Any]], float]:
    """Return a function from what runs a model to the relative increase of its loss.

    The loss is the reconstruction loss of the latent mean on validation images; 0.01 means that it
    is 1 % higher than that of the model in float32.

    Args:
        model: The trained model, on the device.
        dataset: The images.
        batch: Batch size of what runs the model.
        device: Device of its arguments and outputs.
    """
    images = _images(dataset, dataset.validation[:JUDGED_IMAGES])
    noise = torch.zeros(len(images), model.architecture.latent_size)
    passes = batches_of((images, noise), batch, device)

    def loss(run: Callable[..., Any]) -> float:
        with torch.inference_mode():
            terms = [
                vae_loss(run(part.clone(), zeros)[0].float(), part, zeros, zeros).reconstruction
                for part, zeros in passes
            ]
            return float(torch.stack(terms).mean())

    base = loss(model.eval())
    return lambda run: loss(run) / base - 1


def _images(dataset: ImageDataset, rows: ImageIndices) -> Tensor:
    return torch.from_numpy(np.asarray(dataset.images[rows])).float() / 255
