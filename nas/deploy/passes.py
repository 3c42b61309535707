"""The passes of a VAE that are deployed. They draw no noise: what is decoded is the latent mean."""

from __future__ import annotations

from torch import Tensor, nn

from nas.vae import VAE

MODEL, ENCODER, DECODER = "model", "encoder", "decoder"

# An output called "mean" would clash with values of that name inside an ONNX graph.
OUTPUTS = {
    MODEL: ("reconstruction", "latent_mean", "latent_log_variance"),
    ENCODER: ("latent_mean", "latent_log_variance"),
    DECODER: ("reconstruction",),
}
"""Names of the outputs of each pass; `MODEL` is the whole of it."""


class Reconstruction(nn.Module):
    """The pass of the whole model with the latent mean instead of a sample."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.encoder, self.decoder = vae.encoder, vae.decoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, latent mean and log-variance of images in [0, 1]."""
        mean, log_variance = self.encoder(images)
        return self.decoder(mean), mean, log_variance


class Encoding(nn.Module):
    """The pass of the encoder."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.encoder = vae.encoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return latent mean and log-variance, each `(batch, latent)`."""
        mean, log_variance = self.encoder(images)
        return mean, log_variance


class Decoding(nn.Module):
    """The pass of the decoder."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.decoder = vae.decoder

    def forward(self, latent: Tensor) -> Tensor:
        """Return the images of latents `(batch, latent)`."""
        images: Tensor = self.decoder(latent)
        return images
