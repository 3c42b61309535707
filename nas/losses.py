"""The paper's loss with one of two SSIM windows, and further image metrics.

Images are `(batch, channels, height, width)` in [0, 1], `float32`. SSIM and MS-SSIM are at most 1
and PSNR is in dB; for these higher is better. For every term of the loss lower is better.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Window = Literal["gaussian", "uniform"]
"""`gaussian`: SSIM of pytorch-msssim. `uniform`: SSIM of the paper's published code."""

_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for a data range of 1
_WINDOW_SIZE, _SIGMA = 11, 1.5
# With 7 pixels, five scales fit images from 97 pixels; with 11, the paper's 144 are too small.
_MS_WINDOW_SIZE = 7
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003
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


def ssim(first: Tensor, second: Tensor, window: Window = "gaussian") -> Tensor:
    """Return the structural similarity, averaged over pixels, channels and images: a scalar.

    It is at most 1.

    - `gaussian`: equal to `pytorch_msssim.ssim` with a window of 11x11 and sigma 1.5, for windows
      inside the image only. For images below 11 pixels the window is the largest odd size that
      fits.
    - `uniform`: averages over 11x11 pixels around every pixel, of the pixels inside the image
      (`avg_pool2d` with stride 1, padding 5 and `count_include_pad=False`).
    """
    if window == "uniform":
        return _similarity(first, second, window, _WINDOW_SIZE)[0].mean()
    fits = _odd_width(min(first.shape[2:]), _WINDOW_SIZE)
    return _similarity(first, second, window, fits)[0].mean()


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the multi-scale structural similarity, averaged over images and channels: a scalar.

    It is the product of contrast and structure at every scale and luminance at the last (Wang,
    Simoncelli and Bovik 2003), equal to `pytorch_msssim.ms_ssim(win_size=7)` from 97 pixels. For
    smaller images there are fewer than five scales, whose weights are multiplied so that their sum
    is unchanged.
    """
    scales, size = 1, min(first.shape[2:])
    while scales < len(_MS_WEIGHTS) and (size := (size + 1) // 2) >= _MS_WINDOW_SIZE:
        scales += 1
    growth = sum(_MS_WEIGHTS) / sum(_MS_WEIGHTS[:scales])
    product = torch.ones((), device=first.device)
    for scale, weight in enumerate(_MS_WEIGHTS[:scales]):
        whole, contrast = _similarity(first, second, "gaussian", _MS_WINDOW_SIZE)
        used = whole if scale == scales - 1 else contrast
        # The power of a negative similarity is not real, so it counts as 0.
        product = product * used.mean(dim=(2, 3)).relu() ** (growth * weight)
        first, second = _halved(first), _halved(second)
    return product.mean()


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB, a mean over images; at most 100 dB."""
    mse = (first - second).square().flatten(1).mean(dim=1)
    return -10 * mse.clamp_min(_MIN_MSE).log10().mean()


def _similarity(
    first: Tensor, second: Tensor, window: Window, window_size: int
) -> tuple[Tensor, Tensor]:
    """Return the maps of SSIM and of its contrast-structure factor (Wang et al. 2004, eq. 13).

    SSIM is (2 m1 m2 + C1) / (m1^2 + m2^2 + C1), the luminance, times
    (2 cov + C2) / (var1 + var2 + C2), contrast and structure. The means m1 and m2, the variances
    and the covariance are those within one window. Each factor is computed as 1 minus a quotient
    of non-negative numbers, by 2 m1 m2 = m1^2 + m2^2 - (m1 - m2)^2 and the same for the variance
    of the difference: so no rounding makes it exceed 1, and it is precise near 1.

    Both windows are separable, so a filter is two matrix products, one from each side. They are
    exact at the borders, and on a CPU four to six times as fast as convolution or pooling.
    """
    first, second = first.contiguous(), second.contiguous()
    rows, columns = (_filter(window, n, window_size, first.device) for n in first.shape[2:])

    def blur(maps: Tensor) -> Tensor:
        return rows @ maps @ columns.T

    # Variances do not depend on a shift, and E[x^2] - E[x]^2 loses fewer digits of values around 0.
    # A constant shift, so that gradients need not pass through it.
    level_1, level_2 = (image.detach().mean(dim=(2, 3), keepdim=True) for image in (first, second))
    first, second = first - level_1, second - level_2
    mean_1, mean_2 = blur(first), blur(second)
    # Within a window, variance = E[x^2] - E[x]^2; rounding may make it negative.
    variances = (blur(first.square() + second.square()) - mean_1.square() - mean_2.square()).relu()
    unlike = (blur((first - second).square()) - (mean_1 - mean_2).square()).relu()
    contrast = 1 - unlike / (variances + _C2)
    squared_shift = (mean_1 - mean_2 + (level_1 - level_2)).square()
    squared_means = (mean_1 + level_1).square() + (mean_2 + level_2).square()
    return contrast * (1 - squared_shift / (squared_means + _C1)), contrast


@cache
def _filter(window: Window, size: int, window_size: int, device: torch.device) -> Tensor:
    """Return the matrix `(positions, size)` that filters one row of `size` pixels."""
    with torch.inference_mode(mode=False):  # the cached tensor is used in training too
        if window == "uniform":
            position = torch.arange(size)
            near = (position[:, None] - position).abs() <= window_size // 2
            return (near / near.sum(dim=1, keepdim=True)).to(device)
        width = _odd_width(size, window_size)
        weights = torch.exp(-((torch.arange(width) - width // 2) ** 2) / (2 * _SIGMA**2))
        bands = torch.zeros(size - width + 1, size)
        for start, row in enumerate(bands):
            row[start : start + width] = weights / weights.sum()
        return bands.to(device)


def _odd_width(size: int, window_size: int) -> int:
    return min(window_size, size - (size + 1) % 2)


def _halved(images: Tensor) -> Tensor:
    padding = [n % 2 for n in images.shape[2:]]
    return F.avg_pool2d(images, 2, padding=padding)
