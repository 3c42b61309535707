"""From an architecture to a network: `build_vae`."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Generator, Tensor, nn

from nas.blocks import BLOCKS
from nas.heads import HEADS
from nas.layers import (
    ACTIVATIONS,
    DOWNSAMPLING,
    OPERATORS,
    POINTWISE,
    UPSAMPLING,
    ConvLayer,
    Crop,
    StageLayers,
    normalised,
)
from search_spaces.architecture import Architecture

DECODER_TRANSITION = ConvLayer(1, transposed=True)
"""The paper's dense decoder has transposed 1x1 transitions beside ordinary convolutions."""


class EncoderNetwork(nn.Module):
    """Image to the mean and log-variance of its latent: stem, stages, head, two linear layers."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        described, activation = architecture.encoder, architecture.activation
        operator, channels = OPERATORS["convolution"], architecture.image_channels
        self.stem: nn.Module | None = None
        if width := described.stem_width:
            self.stem = normalised(operator.build(channels, width), width, activation)
            channels = width
        self.stages = nn.Sequential()
        for stage in described.stages:
            resampling = DOWNSAMPLING[stage.downsampling]
            layers = StageLayers(activation, operator, POINTWISE, resampling)
            self.stages.append(BLOCKS[stage.block](channels, stage, layers))
            channels = stage.width
        shape = channels, architecture.encoder_sizes[-1], described.head_width
        self.head = HEADS[described.head](*shape, activation)
        features = HEADS[described.head].features(*shape)
        self.mean = nn.Linear(features, architecture.latent_size)
        self.log_variance = nn.Linear(features, architecture.latent_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each `(batch, latent)`."""
        features = images if self.stem is None else self.stem(images)
        features = self.head(self.stages(features))
        return self.mean(features), self.log_variance(features)


class Reparameterise(nn.Module):
    """Sample the latent so that gradients reach mean and log-variance (Kingma & Welling 2014)."""

    def forward(self, mean: Tensor, log_variance: Tensor, eps: Tensor | None = None) -> Tensor:
        """Return `mean + exp(0.5 log_variance) * eps`; `eps` is drawn N(0, 1) where not given."""
        if eps is None:
            eps = torch.randn_like(mean)
        return mean + torch.exp(0.5 * log_variance) * eps


class DecoderNetwork(nn.Sequential):
    """Latent `(batch, latent)` to image: linear seed, stages, 3x3 output layer, sigmoid."""

    stages: nn.Sequential

    def __init__(self, architecture: Architecture) -> None:
        described, activation = architecture.decoder, architecture.activation
        operator = OPERATORS[described.operator]
        channels, stages = described.seed_width, nn.Sequential()
        sizes = architecture.decoder_sizes
        for stage, before, after in zip(described.stages, sizes, sizes[1:], strict=False):
            resampling = UPSAMPLING[stage.upsampling]
            layers = StageLayers(activation, operator, DECODER_TRANSITION, resampling)
            built = BLOCKS[stage.block](channels, stage, layers)
            if after < 2 * before:
                built.add_module("crop", Crop(after))
            stages.append(built)
            channels = stage.width
        output = operator.build(channels, architecture.image_channels)
        super().__init__(
            OrderedDict(
                seed=_seed(architecture),
                stages=stages,
                output=nn.Sequential(OrderedDict(convolution=output, sigmoid=nn.Sigmoid())),
            )
        )


class VAE(nn.Module):
    """A variational autoencoder for images `(batch, channels, size, size)` in [0, 1].

    `encoder` and `decoder` are modules of their own, to be measured or exported alone; calling the
    VAE is the full forward pass: encoder, sampling, decoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = EncoderNetwork(architecture)
        self.reparameterise = Reparameterise()
        self.decoder = DecoderNetwork(architecture)

    def forward(self, images: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance; samples in eval mode too, like the paper.

        `eps` `(batch, latent)` replaces the random draw: zeros give the reconstruction of the mean.
        """
        mean, log_variance = self.encoder(images)
        latent = self.reparameterise(mean, log_variance, eps)
        return self.decoder(latent), mean, log_variance

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance, each `(batch, latent)`."""
        return self.encoder(images)  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        """Return the images of latents `(batch, latent)`."""
        return self.decoder(latent)  # type: ignore[no-any-return]

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the image of each latent mean: no sampling, the same at every call."""
        return self.decode(self.encode(images)[0])

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Return `count` images of latents drawn N(0, 1) on the CPU, the same for every device."""
        latent = torch.randn(count, self.architecture.latent_size, generator=generator)
        return self.decode(latent.to(self.encoder.mean.weight.device))


def build_vae(architecture: Architecture, seed: int | None = None) -> VAE:
    """Return the network that `architecture` describes, in training mode.

    Parameters are initialised as PyTorch does by default, from the global random state or, with a
    `seed`, from that seed alone on the CPU, leaving the random state as it was. Under
    `torch.device("meta")` and without a seed nothing is allocated.
    """
    if seed is None:
        return VAE(architecture)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not `torch.manual_seed`: that would reseed the accelerators too.
        torch.default_generator.manual_seed(seed)
        return VAE(architecture)


def _seed(architecture: Architecture) -> nn.Sequential:
    width, size = architecture.decoder.seed_width, architecture.decoder_sizes[0]
    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(architecture.latent_size, width * size * size),
            activation=ACTIVATIONS[architecture.activation](),
            reshape=nn.Unflatten(1, (width, size, size)),
        )
    )
