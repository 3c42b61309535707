"""Distillation: a student learns from the reconstructions of trained teachers.

The loss of a step is the usual one plus a weight times the same reconstruction loss, 1 - SSIM +
`l1_weight` x L1, of the student's reconstruction against that of the teacher. The teacher decodes
the mean of its latent, so its reconstruction does not depend on noise. Several teachers are an
ensemble, whose reconstruction is the mean of theirs (Hinton, Vinyals and Dean 2015, "Distilling
the Knowledge in a Neural Network").

Distillation also gives the reconstruction a larger weight, which alone can lower the loss. The
control is therefore the same weight without a teacher: the loss against the image itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.checkpoint import weights_digest
from nas.ssim import Window, ssim
from nas.vae import VAE

WEIGHT = 0.5
"""Weight of the loss against the teacher."""


@dataclass(frozen=True)
class Guidance:
    """A further term of the loss of a training.

    Attributes:
        weight: Its weight.
        teachers: The trained models, in evaluation mode; without any, the target is the image.
    """

    weight: float = WEIGHT
    teachers: tuple[VAE, ...] = ()

    @cached_property
    def identity(self) -> list[float | str]:
        """Weight and the digests of the teachers' weights."""
        return [self.weight, *(weights_digest(one.state_dict()) for one in self.teachers)]

    def to(self, device: torch.device, layout: torch.memory_format) -> None:
        """Move the teachers to a device and give their weights a memory layout."""
        for teacher in self.teachers:
            teacher.to(device, memory_format=layout)  # type: ignore[call-overload]

    def loss(
        self, rebuilt: Tensor, images: Tensor, window: Window, l1_weight: float, *, half: bool
    ) -> Tensor:
        """Return the further term of a batch: a scalar.

        Args:
            rebuilt: The student's reconstructions, `(batch, channels, size, size)` in [0, 1].
            images: The images, of the same shape.
            window: Window of the structural similarity.
            l1_weight: Weight of the mean absolute error.
            half: Whether the teachers run under autocast to bfloat16, as the student does.
        """
        target = self.target(images, half=half)
        return self.weight * (
            1 - ssim(rebuilt, target, window) + l1_weight * F.l1_loss(rebuilt, target)
        )

    def target(self, images: Tensor, *, half: bool = False) -> Tensor:
        """Return the mean of the teachers' reconstructions, or the images without teachers."""
        if not self.teachers:
            return images
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            rebuilt = [teacher.reconstruct(images).float() for teacher in self.teachers]
        return torch.stack(rebuilt).mean(dim=0)
