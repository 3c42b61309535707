"""A loss: a scalar tensor, which the training minimises."""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(
    reconstruction: Tensor, images: Tensor, mean: Tensor, log_variance: Tensor
) -> Tensor:
    """Return a smooth absolute error, plus 0.001 times the KL divergence from N(0, 1)."""
    error = torch.sqrt((reconstruction - images).square() + 1e-6).mean()
    divergence = mean.square() + log_variance.exp() - 1 - log_variance
    return error + 1e-3 * 0.5 * divergence.sum(dim=1).mean()
