"""The paper's loss and its terms, and PSNR.

Images are `(batch, channels, height, width)` in [0, 1], `float32`. For every term of the loss lower
is better, except SSIM; PSNR is in dB, and higher is better.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from nas.ssim import Window, ssim

_MIN_MSE = 1e-10


class LossTerms(NamedTuple):
    """The loss of one batch and its terms; each is a scalar tensor, a mean over the batch.

    Attributes:
        total: `reconstruction + kl_weight * kl`.
        reconstruction: `(1 - ssim) + l1_weight * l1`.
        ssim: Structural similarity under the chosen window.
        l1: Mean absolute error over pixels and channels.
        kl: Kullback-Leibler divergence from N(0, 1), summed over the latent, in nats.
    """

    total: Tensor
    reconstruction: Tensor
    ssim: Tensor
    l1: Tensor
    kl: Tensor


def vae_loss(
    reconstruction: Tensor,
    images: Tensor,
    mean: Tensor,
    log_variance: Tensor,
    *,
    window: Window = "gaussian",
    l1_weight: float = 0.5,
    kl_weight: float = 1e-3,
) -> LossTerms:
    """Return the paper's loss: (1 - SSIM) + 0.5 L1 + 1e-3 KL.

    Reconstruction and images have the same shape. Mean and log-variance are `(batch, latent)`.
    """
    similarity = ssim(reconstruction, images, window)
    l1 = F.l1_loss(reconstruction, images)
    kl = kl_divergence(mean, log_variance)
    rebuilt = 1 - similarity + l1_weight * l1
    return LossTerms(rebuilt + kl_weight * kl, rebuilt, similarity, l1, kl)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from N(0, 1), in nats: a scalar.

    It is summed over the latent and averaged over the batch (Kingma and Welling 2014, appendix B):
    1/2 sum(mean^2 + variance - 1 - ln variance). Both arguments are `(batch, latent)`. It is never
    negative.
    """
    # Near N(0, 1), `exp() - 1` would lose all digits; the last digit of `expm1` may be too small.
    excess = (log_variance.expm1() - log_variance).clamp_min(0)
    return 0.5 * (mean.square() + excess).sum(dim=1).mean()


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, a mean over images; at most 100 dB."""
    mse = (first - second).square().flatten(1).mean(dim=1)
    return -10 * mse.clamp_min(_MIN_MSE).log10().mean()
