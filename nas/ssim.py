"""SSIM and MS-SSIM of image batches, with the gradient of SSIM by its formula.

Images are `(batch, channels, height, width)` in [0, 1]. Both measures are at most 1, and higher is
better. A window compares two images by means, variances and a covariance around one pixel; that
takes most of the time, so it is done in the form that is fastest on the device.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Window = Literal["gaussian", "uniform"]
"""`gaussian`: SSIM of pytorch-msssim. `uniform`: SSIM of the paper's published code."""

_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. 2004, for a data range of 1
_WINDOW_SIZE, _SIGMA = 11, 1.5
# With 7 pixels, five scales fit images from 97 pixels; with 11, the paper's 144 are too small.
_MS_WINDOW_SIZE = 7
_MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003


def ssim(first: Tensor, second: Tensor, window: Window = "gaussian") -> Tensor:
    """Return the structural similarity, averaged over pixels, channels and images: a scalar.

    It is at most 1. It is fastest if only the first images need a gradient. Shapes are broadcast.

    - `gaussian`: equal to `pytorch_msssim.ssim` with a window of 11x11 and sigma 1.5, for windows
      inside the image only. For images below 11 pixels the window is the largest odd size that
      fits.
    - `uniform`: averages over 11x11 pixels around every pixel, of the pixels inside the image
      (`avg_pool2d` with stride 1, padding 5 and `count_include_pad=False`).
    """
    first, second = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
    if second.requires_grad:
        parts = _compare(first, second, _Windows(window, first, _WINDOW_SIZE))
        return (parts.contrast * parts.luminance).mean()
    similarity: Tensor = _MeanSimilarity.apply(first, second, window)  # type: ignore[no-untyped-call]
    return similarity


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the multi-scale structural similarity, averaged over images and channels: a scalar.

    It is the product of contrast and structure at every scale and luminance at the last (Wang,
    Simoncelli and Bovik 2003), equal to `pytorch_msssim.ms_ssim(win_size=7)` from 97 pixels. For
    smaller images there are fewer than five scales, whose weights are multiplied so that their sum
    is unchanged. Shapes are broadcast.
    """
    first, second = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
    scales, size = 1, min(first.shape[2:])
    while scales < len(_MS_WEIGHTS) and (size := (size + 1) // 2) >= _MS_WINDOW_SIZE:
        scales += 1
    growth = sum(_MS_WEIGHTS) / sum(_MS_WEIGHTS[:scales])
    product = torch.ones((), device=first.device)
    for scale, weight in enumerate(_MS_WEIGHTS[:scales]):
        windows = _Windows("gaussian", first, _MS_WINDOW_SIZE)
        parts = _compare(first, second, windows)
        used = parts.contrast * parts.luminance if scale == scales - 1 else parts.contrast
        # The power of a negative similarity is not real, so it counts as 0.
        product = product * used.mean(dim=(2, 3)).relu() ** (growth * weight)
        first, second = _halved(first), _halved(second)
    return product.mean()


class _Parts(NamedTuple):
    """What SSIM consists of; maps are `(1, images * channels, height, width)`.

    Attributes:
        first: The first images, less their means; `unlike` is their difference from the second.
        mean, shift: Mean of the first within each window; by how much it exceeds the second's.
        level, apart: The same, with the means of whole images added.
        variances, differing: Sum of the variances of both; variance of the difference.
        squares: Sum of the squared means of both, plus C1.
        contrast, luminance: The factors of SSIM.
    """

    first: Tensor
    unlike: Tensor
    mean: Tensor
    shift: Tensor
    level: Tensor
    apart: Tensor
    variances: Tensor
    differing: Tensor
    squares: Tensor
    contrast: Tensor
    luminance: Tensor


def _compare(first: Tensor, second: Tensor, windows: _Windows) -> _Parts:
    """Return the factors of SSIM (Wang et al. 2004, eq. 13) and what they are computed from.

    SSIM is (2 m1 m2 + C1) / (m1^2 + m2^2 + C1), the luminance, times
    (2 cov + C2) / (var1 + var2 + C2), contrast and structure. The means m1 and m2, the variances
    and the covariance are those within one window. Each factor is computed as 1 minus a quotient
    of non-negative numbers, by 2 m1 m2 = m1^2 + m2^2 - (m1 - m2)^2 and the same for the variance
    of the difference: so no rounding makes it exceed 1, and it is precise near 1.
    """
    # Variances do not depend on a shift, and E[x^2] - E[x]^2 loses fewer digits of values around 0.
    # A constant shift, so that gradients need not pass through it.
    first, second = windows.maps(first), windows.maps(second)
    level_1, level_2 = (maps.detach().mean(dim=(2, 3), keepdim=True) for maps in (first, second))
    first, second = first - level_1, second - level_2
    unlike = first - second
    mean_1, mean_2 = windows.average(first), windows.average(second)
    shift = mean_1 - mean_2
    # Within a window, variance = E[x^2] - E[x]^2; rounding may make it negative.
    variances = windows.average(first.square().addcmul_(second, second))
    variances.addcmul_(mean_1, mean_1, value=-1).addcmul_(mean_2, mean_2, value=-1).relu_()
    differing = windows.average(unlike.square()).addcmul_(shift, shift, value=-1).relu_()
    level, apart = mean_1 + level_1, shift + (level_1 - level_2)
    squares = level.square().add_((mean_2 + level_2).square_()).add_(_C1)
    contrast = 1 - differing / (variances + _C2)
    luminance = 1 - apart.square().div_(squares)
    return _Parts(
        first, unlike, mean_1, shift, level, apart, variances, differing, squares, contrast,
        luminance,
    )  # fmt: skip


class _MeanSimilarity(torch.autograd.Function):
    """The mean SSIM, whose gradient is computed with its value.

    Autograd would keep many maps as large as the images until the backward pass, and read each
    again from memory. Here only the gradient is kept.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, window: Window) -> Tensor:
        windows = _Windows(window, first, _WINDOW_SIZE)
        parts = _compare(first, second, windows)
        similarity = parts.contrast * parts.luminance
        if ctx.needs_input_grad[0]:
            slopes = _slopes(parts, windows).div_(similarity.numel())
            by_pixel = slopes[0].permute(1, 2, 0).reshape(*slopes.shape[2:], *first.shape[:2])
            ctx.save_for_backward(torch.empty_like(first).copy_(by_pixel.permute(2, 3, 0, 1)))
        return similarity.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * slope, None, None


def _slopes(parts: _Parts, windows: _Windows) -> Tensor:
    """Return the derivatives of the sum of all similarities by each value of the first maps.

    With S = (1 - d / V) (1 - a^2 / Q), where V and Q are the denominators, by the chain rule
    through mean, sum of variances and variance of the difference of each window. The transposed
    filter brings these from windows to pixels.
    """
    denominator = parts.variances + _C2
    by_unit = parts.luminance / denominator
    by_differing = by_unit.neg().mul_(parts.differing > 0)
    by_variances = by_unit.mul_(parts.differing).div_(denominator).mul_(parts.variances > 0)
    by_mean = (1 - parts.luminance).mul_(parts.level).sub_(parts.apart).mul_(parts.contrast)
    by_mean.div_(parts.squares).addcmul_(by_variances, parts.mean, value=-1)
    by_mean.addcmul_(by_differing, parts.shift, value=-1)
    slopes = windows.spread(by_mean).addcmul_(parts.first, windows.spread(by_variances))
    return slopes.addcmul_(parts.unlike, windows.spread(by_differing)).mul_(2)


class _Windows:
    """Weighted means within the windows of images: `average`, and its transposed map, `spread`.

    Both windows are separable: one pass along the columns and one along the rows. Where oneDNN
    computes, each is a depthwise convolution whose channels are the maps of the batch, which is 3
    to 4 times as fast at 144 pixels as products with banded matrices. Those are used elsewhere
    (other devices, `float64`).

    Args:
        window: The kind of window.
        images: Images of the shape, type and device.
        size: Width of a window in pixels.
    """

    def __init__(self, window: Window, images: Tensor, size: int) -> None:
        where = images.dtype, images.device
        if window == "gaussian":
            size = _odd_width(min(images.shape[2:]), size)
        self._rows, self._columns = (_side(window, n, size, *where) for n in images.shape[2:])
        self._depthwise = (
            images.device.type == "cpu"
            and images.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        )

    def maps(self, images: Tensor) -> Tensor:
        """Return images as maps `(1, batch * channels, height, width)`, in the fastest layout."""
        if not self._depthwise:
            return images.reshape(1, -1, *images.shape[2:])
        innermost = images.permute(2, 3, 0, 1).flatten(2).contiguous().unsqueeze(0)
        return innermost.permute(0, 3, 1, 2)  # in the strides by which oneDNN knows `channels_last`

    def average(self, maps: Tensor) -> Tensor:
        """Return the mean of each window: `(1, maps, rows, columns)` of windows."""
        if not self._depthwise:
            return self._rows.matrix @ maps @ self._columns.matrix.T
        sums = self._convolved(maps, self._rows.padding, self._columns.padding)
        return sums.mul_(self._scale) if self._rows.uneven else sums

    def spread(self, values: Tensor) -> Tensor:
        """Return, of values by window, the sums by pixel with the weights of `average`."""
        if not self._depthwise:
            return self._rows.matrix.T @ values @ self._columns.matrix
        values = values * self._scale if self._rows.uneven else values
        return self._convolved(
            values, *(len(side.taps) - 1 - side.padding for side in (self._rows, self._columns))
        )

    @property
    def _scale(self) -> Tensor:
        return self._rows.scale[:, None] * self._columns.scale

    def _convolved(self, maps: Tensor, above: int, left: int) -> Tensor:
        count = maps.shape[1]
        down = self._rows.taps.view(1, 1, -1, 1).expand(count, 1, -1, 1)
        across = self._columns.taps.view(1, 1, 1, -1).expand(count, 1, 1, -1)
        columns = F.conv2d(maps, down, padding=(above, 0), groups=count)
        return F.conv2d(columns, across, padding=(0, left), groups=count)


class _Side(NamedTuple):
    """The filter along one side of an image. All windows are symmetric.

    Attributes:
        taps: The weights within a window, before `scale`.
        padding: Pixels by which the first window extends beyond the image.
        scale: Factor of each window `(positions,)`.
        uneven: Whether the factors differ from 1.
        matrix: The same filter as a matrix `(positions, pixels)`.
    """

    taps: Tensor
    padding: int
    scale: Tensor
    uneven: bool
    matrix: Tensor


@cache
def _side(
    window: Window, pixels: int, size: int, dtype: torch.dtype, device: torch.device
) -> _Side:
    with torch.inference_mode(mode=False):  # the cached tensors are used in training too
        uneven = window == "uniform"
        padding = size // 2 if uneven else 0
        offsets = torch.arange(size) - size // 2
        weights = torch.ones(size) if uneven else torch.exp(-(offsets**2) / (2 * _SIGMA**2))
        taps = weights if uneven else weights / weights.sum()
        positions = pixels + 2 * padding - size + 1
        bands = torch.zeros(positions, pixels + 2 * padding)
        for start, row in enumerate(bands):
            row[start : start + size] = taps
        matrix = bands[:, padding : padding + pixels]
        scale = 1 / matrix.sum(dim=1) if uneven else torch.ones(positions)
        where: dict[str, Any] = {"dtype": dtype, "device": device}
        scaled = (scale[:, None] * matrix).to(**where)
        return _Side(taps.to(**where), padding, scale.to(**where), uneven, scaled)


def _odd_width(size: int, window_size: int) -> int:
    return min(window_size, size - (size + 1) % 2)


def _halved(images: Tensor) -> Tensor:
    padding = [n % 2 for n in images.shape[2:]]
    return F.avg_pool2d(images, 2, padding=padding)
