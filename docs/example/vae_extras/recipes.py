"""A recipe: a function that returns the optimiser of a model."""

from __future__ import annotations

import torch
from torch import nn


def momentum(model: nn.Module, learning_rate: float = 0.01) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9)
