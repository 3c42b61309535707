"""Losses of the user's own: functions of a batch that a training minimises.

A loss is a function `(reconstruction, images, mean, log_variance)` that returns a scalar tensor. It
replaces the total loss, by which the best epoch is chosen; the terms of the paper's loss (SSIM, L1,
KL) are still recorded, so that models can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from nas.own.imports import PartFailed, imported, require_call, told
from search_spaces.errors import UserError

PAPER = "paper"
"""The name of the paper's loss: (1 - SSIM) + 0.5 L1 + 0.001 KL."""

ARGUMENTS = ("reconstruction", "images", "mean", "log_variance")

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@cache
def find_loss(name: str) -> Loss | None:
    """Return a loss by its import string; None for the paper's.

    Raises:
        UserError: the import string names no such function.
    """
    if name == PAPER:
        return None
    if ":" not in name:
        raise UserError(
            f"{name!r} is not a loss; use {PAPER}, or an import string such as mypkg.losses:mine"
        )
    function = require_call(name, imported(name), ARGUMENTS)

    def loss(*batch: Tensor) -> Tensor:
        try:
            found = function(*batch)
        except Exception as error:  # code of the user
            raise PartFailed(f"{name} raised {told(error)}") from error
        _require_scalar(name, found, batch[0])
        scalar: Tensor = found
        return scalar

    return loss


def _require_scalar(name: str, found: object, reconstruction: Tensor) -> None:
    """Check that a loss can be minimised.

    Raises:
        PartFailed: it is no scalar tensor, or has no gradient.
    """
    if not isinstance(found, Tensor) or found.shape != ():
        kind = type(found).__name__
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise PartFailed(f"{name} returned a {kind}{shape}, not a scalar tensor")
    if torch.is_grad_enabled() and reconstruction.requires_grad and not found.requires_grad:
        raise PartFailed(f"{name} returned a tensor that has no gradient")
