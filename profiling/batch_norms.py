"""BatchNorm statistics that fit the weights of a model.

Those of a new model are 0 and 1, those of a training are of earlier weights.

The time of an operation depends on the values that it gets: activations are faster on zeros, and
denormal numbers are slow. A new BatchNorm passes its input on unchanged, so the values in a new
network shrink from layer to layer, which they do not in a trained one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
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
