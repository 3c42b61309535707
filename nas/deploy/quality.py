"""How good the reconstructions of what runs a model are, beside those of the model itself.

The loss is the reconstruction loss of the latent mean, image by image, on images that neither
trained nor calibrated anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas.losses import vae_loss
from nas.protocol import TrainingConfig
from profiling.intervals import Interval

Run = Callable[..., Any]
"""Takes a batch of images `(n, channels, height, width)`; its first output is reconstructions."""

_RESAMPLES = 1000


@dataclass(frozen=True)
class Quality:
    """The quality of what runs a model, on held-out images.

    Attributes:
        loss: Mean reconstruction loss.
        ssim: Mean structural similarity.
        cost: Relative increase of the mean loss over that of the model in eager float32; 0.01 is
            1 %.
        interval: 95 % interval of the cost, by a paired bootstrap over images.
        worst: Relative increase of the loss of the image that loses most.
        images: Number of images.
    """

    loss: float
    ssim: float
    cost: float
    interval: Interval
    worst: float
    images: int


class HeldOut:
    """Held-out images, with the losses of the model in eager float32.

    Args:
        images: Float images in [0, 1], `(n, channels, height, width)`.
        eager: The model in evaluation mode.
        training: The training settings, which have the window and the weight of the loss.
        batch: Number of images that are run at a time.
        device: Device of the images that are run; losses are computed on the CPU.
    """

    def __init__(
        self,
        images: Tensor,
        eager: Run,
        training: TrainingConfig,
        batch: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self._images, self._training = images, training
        rows = torch.arange(-(-len(images) // batch) * batch) % len(images)  # whole batches
        self._batches = [images[part].to(device) for part in torch.split(rows, batch)]
        self._base = self._losses(eager)

    @property
    def base(self) -> Quality:
        """The quality of the model in eager float32."""
        return self._compared(self._base)

    def judge(self, run: Run) -> Quality:
        """Return the quality of what runs the model."""
        return self._compared(self._losses(run))

    def _compared(self, found: npt.NDArray[np.float64]) -> Quality:
        (losses, similarities), base = found, self._base[0]
        return Quality(
            loss=float(losses.mean()),
            ssim=float(similarities.mean()),
            cost=float(losses.mean() / base.mean() - 1),
            interval=_interval(losses, base),
            worst=float((losses / base).max() - 1),
            images=len(base),
        )

    def _losses(self, run: Run) -> npt.NDArray[np.float64]:
        """Return loss and SSIM of each image, `(2, n)`."""
        with torch.inference_mode():
            rebuilt = torch.cat([run(batch.clone())[0].float().cpu() for batch in self._batches])
            pairs = [
                self._of_one(*pair)
                for pair in zip(torch.split(rebuilt, 1), torch.split(self._images, 1), strict=False)
            ]
        return np.array(pairs, dtype=np.float64).T

    def _of_one(self, rebuilt: Tensor, image: Tensor) -> tuple[float, float]:
        zeros = torch.zeros(1, 1)
        terms = vae_loss(
            rebuilt,
            image,
            zeros,
            zeros,
            window=self._training.ssim,
            l1_weight=self._training.l1_weight,
        )
        # Of a perfect reconstruction the loss is 0, and nothing can be related to it.
        return max(float(terms.reconstruction), 1e-12), float(terms.ssim)


def _interval(losses: npt.NDArray[np.float64], base: npt.NDArray[np.float64]) -> Interval:
    draws = np.random.default_rng(0).integers(len(base), size=(_RESAMPLES, len(base)))
    costs = losses[draws].mean(axis=1) / base[draws].mean(axis=1) - 1
    low, high = np.quantile(costs, (0.025, 0.975))
    return Interval(float(low), float(high))
