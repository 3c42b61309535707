"""BatchNorm statistics that fit the weights of a model.

Those of a new model are 0 and 1, those of a training are of earlier weights.

The time of an operation depends on the values that it gets: activations are faster on zeros, and
denormal numbers are slow. A new BatchNorm passes its input on unchanged, so the values in a new
network shrink from layer to layer, which they do not in a trained one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from profiling.symbolic import Example, as_args, mode_of


def calibrate_batch_norms(model: nn.Module, examples: Iterable[Example]) -> None:
    """Set the running statistics of each BatchNorm to the means over some batches, in place.

    The statistics are computed layer by layer in passes in training mode, without gradients. The
    mode of the model and the random state are restored. A model without BatchNorms is not run.

    Args:
        model: The model, on a single device.
        examples: Arguments of each pass, with at least two items.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    devices = {tensor.device for tensor in norms[0].buffers() if tensor.is_cuda}
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean: of one batch, exactly its statistics
    try:
        with torch.random.fork_rng(devices=devices), mode_of(model, training=True), torch.no_grad():
            for example in examples:
                model(*(arg.clone() for arg in as_args(example)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def has_new_batch_norms(model: nn.Module) -> bool:
    """Return whether a BatchNorm has the statistics of a new one: means 0 and variances 1."""
    return any(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all())
        for norm in model.modules()
        if isinstance(norm, _BatchNorm)
    )


def randomise_batch_norms(model: nn.Module, example: Example) -> None:
    """Give each BatchNorm random statistics, scales and shifts, in place, for a check of outputs.

    New BatchNorms do nothing, so outputs are right even if they are ignored or applied in a wrong
    place. The statistics are near those of the BatchNorm's input in one pass in evaluation mode, so
    that values neither vanish nor explode; scales have both signs. Equal models get equal values.

    Args:
        model: The model, on a single device.
        example: Arguments of the pass.
    """
    generator = torch.Generator().manual_seed(0)

    def randomise(norm: Any, args: tuple[Tensor, ...]) -> None:
        channels = args[0].transpose(0, 1).flatten(1)
        mean, deviation = channels.mean(1), channels.std(1, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)  # a single value per channel
        random = torch.rand(5, len(mean), generator=generator).to(mean)
        if norm.running_mean is not None:
            norm.running_mean.copy_(mean + deviation * (random[0] - 0.5))
            norm.running_var.copy_((deviation * (0.5 + random[1])) ** 2)
        if norm.affine:
            norm.weight.copy_((0.5 + random[2]) * torch.where(random[3] < 0.5, -1.0, 1.0))
            norm.bias.copy_(random[4] - 0.5)

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    hooks = [norm.register_forward_pre_hook(randomise) for norm in norms]
    try:
        with mode_of(model, training=False), torch.no_grad():
            model(*(arg.clone() for arg in as_args(example)))
    finally:
        for hook in hooks:
            hook.remove()
