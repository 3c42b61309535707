"""The networks of latency measurements, and the images that they are fed.

The time of a pass depends on the values that flow through the network: `original` at 64 pixels is
12 % faster on a black image than on a face, other architectures hardly. A model is therefore timed
on images, with trained weights if there are any. Without them its weights are new ones, and its
BatchNorm statistics are those of the images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.artefacts import read_pixels
from nas.checkpoint import load_vae
from nas.datasets.dataset import ImageDataset
from nas.vae import VAE, build_vae
from profiling.batch_norms import calibrate_batch_norms
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.sizes import Size, sides

COUNT = 16
"""Number of images; successive passes take different ones."""

INITIAL = "initial, with the BatchNorm statistics of the images"
TRAINED = "trained"


@dataclass(frozen=True)
class TimedImages:
    """The images that timed models are fed.

    Attributes:
        pixels: uint8, `(images, channels, height, width)`, at least two images.
        about: Description for the record; equal for equal images.
    """

    pixels: npt.NDArray[np.uint8] = field(compare=False, repr=False)
    about: str

    @classmethod
    def of(cls, dataset: ImageDataset) -> Self:
        """Return the first images of a data set's training part."""
        rows = dataset.train[:COUNT]
        about = f"{len(rows)} images of {dataset.name} {dataset.fingerprint}"
        return cls(np.asarray(dataset.images[rows]), about)

    @classmethod
    def noise(cls, size: Size, channels: int = 3) -> Self:
        """Return uniform noise, where there are no images: models take as long on it."""
        shape = COUNT, channels, *sides(size)
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return cls(pixels, f"{COUNT} images of uniform noise")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the images of an `.npy` file that a study wrote; None if it cannot be read."""
        pixels = read_pixels(path)
        if pixels is None:
            return None
        return cls(pixels, f"{len(pixels)} images of the study")

    def fit(self, architecture: Architecture) -> TimedImages:
        """Return these images if they have the architecture's shape, else noise of that shape."""
        if self.pixels.shape[1:] == architecture.image_shape:
            return self
        return TimedImages.noise(architecture.image_size, architecture.image_channels)

    def tensor(self, device: torch.device | str = "cpu", batch: int = 1) -> Tensor:
        """Return float32 images in [0, 1], `(images, channels, height, width)`.

        They are repeated to two batches, if they are fewer.
        """
        times = -(-2 * batch // len(self.pixels))
        pixels = np.tile(self.pixels, (times, 1, 1, 1)) if times > 1 else self.pixels
        return torch.from_numpy(pixels).to(device).float() / 255


def timed_model(
    architecture: Architecture,
    images: TimedImages,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
) -> tuple[VAE, str]:
    """Return a network to be timed, in evaluation mode on a device, and what its weights are.

    Args:
        architecture: The architecture.
        images: Images of its shape.
        device: Where it is timed.
        weights: A file of its trained weights. Initial weights are used where there is none, or
            it is damaged, or it is of another architecture: the time is nearly the same.
    """
    if weights is not None and (trained := _trained(architecture, weights)):
        return trained.to(device), TRAINED
    model = build_vae(architecture, seed=0).to(device)
    calibrate_batch_norms(model, [images.tensor(device)])
    return model.eval(), INITIAL


def _trained(architecture: Architecture, weights: Path) -> VAE | None:
    try:
        model = load_vae(weights)
    except UserError:
        return None
    return model if model.architecture == architecture else None
