"""How much a loss grows by each layer in 8-bit integers.

One layer at a time has its weights and its inputs rounded as a quantiser rounds them: weights per
output channel and symmetrically, inputs per tensor. Everything else stays in floating point, so
the increase belongs to that layer. No runtime is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from profiling.progress import Progress


def sensitivities(
    model: nn.Module, loss: Callable[[nn.Module], float], progress: Progress | None = None
) -> dict[str, float]:
    """Return the increase of a loss by each convolution and linear layer, largest first.

    Args:
        model: The model; it is not changed.
        loss: Returns the loss of a model.
        progress: Called with (done, total) after each layer.
    """
    model = copy.deepcopy(model).eval()
    whole, found = loss(model), dict[str, float]()
    kinds = _ConvNd, nn.Linear
    layers = {name: one for name, one in model.named_modules() if isinstance(one, kinds)}
    for name, layer in layers.items():
        with _rounded(layer):
            found[name] = loss(model) - whole
        if progress:
            progress(len(found), len(layers))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


@contextmanager
def _rounded(layer: Any) -> Iterator[None]:
    weight = layer.weight.data
    hook = layer.register_forward_pre_hook(lambda _, args: tuple(map(rounded_values, args)))
    layer.weight.data = rounded_weights(weight, 1 if isinstance(layer, _ConvTransposeNd) else 0)
    try:
        yield
    finally:
        layer.weight.data = weight
        hook.remove()


def rounded_weights(weight: Tensor, channels: int) -> Tensor:
    """Return weights rounded to -127 to 127 steps of each output channel's own size.

    Args:
        weight: The weights.
        channels: The dimension of the output channels.
    """
    others = [axis for axis in range(weight.dim()) if axis != channels]
    step = weight.abs().amax(dim=others, keepdim=True).clamp_min(1e-30) / 127
    return (weight / step).round() * step


def rounded_values(values: Tensor) -> Tensor:
    """Return values rounded to 256 levels over their own range, zero among the levels."""
    low, high = values.amin().clamp_max(0), values.amax().clamp_min(0)
    step = (high - low).clamp_min(1e-30) / 255
    zero = (-low / step).round()
    levels = ((values / step).round() + zero).clamp(0, 255)
    result: Tensor = (levels - zero) * step
    return result
