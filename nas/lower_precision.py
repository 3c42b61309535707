"""What lower precisions need, and what they cost: calibration images, and the loss on images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nas.datasets.dataset import ImageDataset, ImageIndices
from nas.deploy.quality import HeldOut, Run
from nas.protocol import TrainingConfig
from nas.vae import VAE

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
    model: VAE, dataset: ImageDataset, training: TrainingConfig, batch: int, device: torch.device
) -> Callable[[Run], float]:
    """Return a function from what runs a model to the relative increase of its loss.

    The loss is that of `nas.deploy.quality`, on validation images; 0.01 means that it is 1 % higher
    than that of the model in float32.

    Args:
        model: The trained model, on the device.
        dataset: The images.
        training: The training settings, which have the window and the weight of the loss.
        batch: Batch size of what runs the model, which takes images and noise.
        device: Device of its arguments and outputs.
    """
    zeros = torch.zeros(batch, model.architecture.latent_size, device=device)

    def at_mean(run: Run) -> Run:
        return lambda images: run(images, zeros)

    images = _images(dataset, dataset.validation[:JUDGED_IMAGES])
    judge = HeldOut(images, at_mean(model.eval()), training, batch, device)
    return lambda run: judge.judge(at_mean(run)).cost


def _images(dataset: ImageDataset, rows: ImageIndices) -> Tensor:
    return torch.from_numpy(np.asarray(dataset.images[rows])).float() / 255
