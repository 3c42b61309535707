"""The networks of architectures, built by `build_vae`."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Generator, Tensor, nn

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
from nas.own.blocks import build_stage
from search_spaces.architecture import Architecture
from search_spaces.sizes import area, enlarged, sides

DECODER_TRANSITION = ConvLayer(1, transposed=True)
"""The 1x1 transitions of dense decoder stages are transposed, as in the paper's model."""


class EncoderNetwork(nn.Module):
    """The encoder: stem, stages, head, and a linear layer each for mean and log-variance."""

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
            self.stages.append(build_stage(channels, stage, layers))
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
    """A differentiable sample of the latent (reparameterisation, Kingma & Welling 2014)."""

    def forward(self, mean: Tensor, log_variance: Tensor, eps: Tensor | None = None) -> Tensor:
        """Return `mean + exp(0.5 log_variance) * eps`; `eps` is drawn from N(0, 1) if not given."""
        if eps is None:
            eps = torch.randn_like(mean)
        return mean + torch.exp(0.5 * log_variance) * eps


class DecoderNetwork(nn.Sequential):
    """The decoder of latents `(batch, latent)`: linear seed, stages, 3x3 output layer, sigmoid."""

    stages: nn.Sequential

    def __init__(self, architecture: Architecture) -> None:
        described, activation = architecture.decoder, architecture.activation
        operator = OPERATORS[described.operator]
        channels, stages = described.seed_width, nn.Sequential()
        sizes = architecture.decoder_sizes
        for stage, before, after in zip(described.stages, sizes, sizes[1:], strict=False):
            resampling = UPSAMPLING[stage.upsampling]
            layers = StageLayers(activation, operator, DECODER_TRANSITION, resampling)
            built = build_stage(channels, stage, layers)
            if after != enlarged(before, 2):
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
    """A variational autoencoder for images `(batch, channels, height, width)` in [0, 1].

    `encoder` and `decoder` are separate modules, which can be measured or exported alone. A call of
    the VAE is the full forward pass: encoder, sampling, decoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = EncoderNetwork(architecture)
        self.reparameterise = Reparameterise()
        self.decoder = DecoderNetwork(architecture)

    def forward(self, images: Tensor, eps: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance.

        The latent is sampled in evaluation mode too, as in the paper's code.

        Args:
            images: `(batch, channels, height, width)` in [0, 1].
            eps: `(batch, latent)`, used instead of a random draw. With zeros, the latent is its
                mean.
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
        """Return the images of the latent means, without sampling."""
        return self.decode(self.encode(images)[0])

    def sample(self, count: int, generator: Generator | None = None) -> Tensor:
        """Return the images of `count` latents from N(0, 1), drawn on the CPU for every device."""
        latent = torch.randn(count, self.architecture.latent_size, generator=generator)
        return self.decode(latent.to(self.encoder.mean.weight.device))


def build_vae(architecture: Architecture, seed: int | None = None) -> VAE:
    """Return the network that `architecture` describes, in training mode.

    Parameters have PyTorch's default initialisation. With a `seed` they are drawn on the CPU from
    that seed, and the global random state is not changed; otherwise they are drawn from the global
    random state. Under `torch.device("meta")` and without a seed, no memory is allocated.
    """
    if seed is None:
        return VAE(architecture)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # `torch.manual_seed` would also reseed the accelerators.
        torch.default_generator.manual_seed(seed)
        return VAE(architecture)


def _seed(architecture: Architecture) -> nn.Sequential:
    width, size = architecture.decoder.seed_width, architecture.decoder_sizes[0]
    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(architecture.latent_size, width * area(size)),
            activation=ACTIVATIONS[architecture.activation](),
            reshape=nn.Unflatten(1, (width, *sides(size))),
        )
    )
