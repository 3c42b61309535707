"""A trained model for use in programs: images and arrays in, latents and images out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from nas.artefacts import WEIGHTS
from nas.checkpoint import load_vae, save_weights
from nas.datasets import load_dataset
from nas.datasets.dataset import ImageDataset
from nas.datasets.decoding import Shape, converted, decoded, quiet_decoders, reason
from nas.datasets.given import Data, as_config, as_pixels
from nas.protocol import TrainingConfig
from nas.training import EpochResult, Trainer
from nas.vae import VAE
from profiling.environment import select_device
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError, refusal
from search_spaces.sizes import sides

Picture = Image.Image | str | Path
"""A picture of Pillow, or the path of a file."""

Pictures = NDArray[Any] | Tensor | Picture | Sequence[Picture]
"""Images of any size: see `Model`."""

_BATCH = 64


@dataclass(frozen=True)
class Model:
    """A trained VAE that takes images of any size and returns arrays.

    Images are one picture (of Pillow, or the path of a file), a list of pictures, or an array or
    tensor `(n, height, width[, channels])` or `(n, channels, height, width)`, uint8 or floats in
    [0, 1]. They are cropped to their centre and resized to the model's size.

    Attributes:
        vae: The network, in evaluation mode.
        history: The result of each epoch of its training; empty if it was loaded.
    """

    vae: VAE
    history: tuple[EpochResult, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """The architecture of the network."""
        return self.vae.architecture

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.vae.parameters()).device

    def encode(self, images: Pictures) -> NDArray[np.float32]:
        """Return the mean of the latent of each image, `(n, latent)`.

        Raises:
            UserError: these are no images, or a file cannot be read.
        """
        return self._mapped(lambda batch: self.vae.encode(batch)[0], self._tensor(images))

    def decode(self, latents: NDArray[Any] | Tensor) -> NDArray[np.uint8]:
        """Return the images of latents `(n, latent)`: uint8 `(n, height, width, channels)`.

        Raises:
            UserError: the latents have another shape.
        """
        given = torch.as_tensor(latents, dtype=torch.float32)
        wanted = self.architecture.latent_size
        if given.ndim != 2 or given.shape[1] != wanted:
            raise UserError(f"latents: of shape {tuple(given.shape)}; give (n, {wanted})")
        return _as_images(self._mapped(self.vae.decode, given))

    def reconstruct(self, images: Pictures) -> NDArray[np.uint8]:
        """Return reconstructions from the mean of the latent: uint8 `(n, height, width, channels)`.

        Raises:
            UserError: these are no images, or a file cannot be read.
        """
        return _as_images(self._mapped(self.vae.reconstruct, self._tensor(images)))

    def sample(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """Return what the model decodes from `count` latents drawn from N(0, 1)."""
        generator = torch.Generator().manual_seed(seed)
        return self.decode(torch.randn(count, self.architecture.latent_size, generator=generator))

    def save(self, path: str | Path) -> Path:
        """Write the weights with their architecture to a `.safetensors` file; return its path.

        Raises:
            UserError: the file cannot be written.
        """
        save_weights(self.vae, Path(path))
        return Path(path)

    def __repr__(self) -> str:
        return f"Model({self.architecture.digest}: {self.architecture.summary})"

    def prepared(self, images: Pictures) -> NDArray[np.uint8]:
        """Return images as the network gets them: uint8 `(n, height, width, channels)`.

        Raises:
            UserError: these are no images, or a file cannot be read.
        """
        shape = Shape(self.architecture.image_size, self.architecture.image_channels, "crop", None)
        if isinstance(images, np.ndarray | Tensor):
            pixels = as_pixels(images, "images")
            if pixels.shape[1:] == (*sides(shape.size), shape.channels):
                return pixels
            images = [Image.fromarray(one.squeeze()) for one in pixels]
        elif isinstance(images, Picture):
            images = [images]
        return np.stack([_read(one, shape) for one in images]).transpose(0, 2, 3, 1)

    def _tensor(self, images: Pictures) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(self.prepared(images)))
        return pixels.permute(0, 3, 1, 2).float() / 255

    def _mapped(self, function: Callable[[Tensor], Tensor], values: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [function(part.to(self.device)).cpu() for part in torch.split(values, _BATCH)]
        found: NDArray[np.float32] = torch.cat(parts).numpy()
        return found


def load_model(path: str | Path) -> Model:
    """Return the model of a `.safetensors` file, or of a folder that holds `weights.safetensors`.

    Raises:
        UserError: there is no such file, or it is damaged or not written by this project.
    """
    place = Path(path).expanduser()
    return Model(load_vae(place / WEIGHTS if place.is_dir() else place))


def train(
    architecture: Architecture,
    images: Data | ImageDataset = None,
    *,
    device: str = "auto",
    on_epoch: Callable[[EpochResult], None] | None = None,
    **settings: Any,
) -> Model:
    """Train an architecture on images, and return the model of its best epoch.

    Args:
        architecture: The architecture.
        images: An array, a tensor, a torch `Dataset` or a list of pictures; the path of a folder;
            a data set or its configuration. None renders faces. They are resized to the
            architecture's size and split into training, validation and test images.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        on_epoch: Called with the result of each epoch.
        settings: Settings of `TrainingConfig`, such as `epochs=5`.

    Raises:
        UserError: images or settings cannot be used.
        ProfilingError: there is no such device.
        CandidateFailed: the training diverged or ran out of memory.
    """
    config = _training(settings)
    dataset = images if isinstance(images, ImageDataset) else _loaded(architecture, images)
    trainer = Trainer(architecture, dataset, config, select_device(device))
    for result in trainer.epochs():
        if on_epoch:
            on_epoch(result)
    return Model(trainer.best_model(), tuple(trainer.history))


def _training(settings: dict[str, Any]) -> TrainingConfig:
    try:
        return TrainingConfig.model_validate(settings)
    except ValidationError as error:
        raise refusal(error, "training", TrainingConfig) from None


def _loaded(architecture: Architecture, images: Data) -> ImageDataset:
    config, channels = as_config(images), architecture.image_channels
    return load_dataset(config, architecture.image_size, channels=channels)


def _read(picture: Picture, shape: Shape) -> NDArray[np.uint8]:
    try:
        if isinstance(picture, Image.Image):
            return converted(picture, shape).pixels
        with quiet_decoders():
            return decoded(Path(picture), shape).pixels
    except Exception as error:  # decoders raise any type for a damaged file
        name = "image" if isinstance(picture, Image.Image) else picture
        raise UserError(f"{name}: cannot be read as an image: {reason(error)}") from None


def _as_images(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = np.rint(values * 255).clip(0, 255).astype(np.uint8)
    return images.transpose(0, 2, 3, 1)
