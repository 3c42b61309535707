"""Exact rewrites of a model: less work for the same function.

Each rewrite is a function and one line in `REWRITES`. It takes a layer and the module whose output
is the only input of that layer, and returns what takes their places. `rewritten` finds the places
by tracing the forward pass with torch.fx. The result computes the same function: in float64 outputs
differ by rounding only. Layers get their inputs with a batch dimension.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from profiling.module_calls import ModuleCalls

Before = nn.Module | None
Replaced = tuple[Before, nn.Module] | None


@dataclass(frozen=True)
class Rewrite:
    """An exact rewrite.

    Attributes:
        done: Remark about one place where it was applied.
        replace: (module before the layer, layer) -> their replacements; None where the rewrite does
            not apply. The module before is None where the layer's input is used elsewhere or comes
            from no module.
    """

    done: str
    replace: Callable[[Before, nn.Module], Replaced]


def rewritten(
    model: nn.Module, names: Iterable[str] | None = None
) -> tuple[nn.Module, Counter[str]]:
    """Return a copy of a model with the named rewrites (default: all) applied wherever they can be.

    A module is left as it is if it is called more than once, has several names, hooks or weights
    that are used elsewhere. A branch that depends on whether an argument is None is traced for
    given arguments.

    Returns:
        The copy in evaluation mode, and the number of places of each rewrite that was applied.

    Raises:
        Exception: torch.fx cannot trace the forward pass (control flow that depends on values).
    """
    names = tuple(REWRITES if names is None else names)
    model, done = copy.deepcopy(model), Counter[str]()
    calls = ModuleCalls(model)
    while step := next(_applicable(calls, names), None):
        name, node, before, (new_before, new) = step
        if before is not None and new_before is not None:
            calls.replace(before, new_before)
        calls.replace(node, new)
        done[name] += 1
    return model.eval(), done


def fold_batch_norms(model: nn.Module) -> tuple[nn.Module, int, int]:
    """Return a copy without the BatchNorms that directly follow a convolution or linear layer.

    Returns:
        The copy in evaluation mode, the number of folded BatchNorms, and the number of all.

    Raises:
        Exception: as `rewritten`.
    """
    folded, done = rewritten(model, [FOLDING])
    return folded, done[FOLDING], sum(isinstance(m, tuple(_FOLDS)) for m in model.modules())


def remark(done: Mapping[str, int]) -> str:
    """Return the remark about the rewrites that were applied."""
    parts = [f"{count} x {REWRITES[name].done}" for name, count in done.items() if count]
    return ", ".join(parts) or "no rewrite applies"


def _applicable(calls: ModuleCalls, names: tuple[str, ...]) -> Iterator[tuple[str, Any, Any, Any]]:
    for name in names:
        for node in calls.rewritable:
            before = calls.before(node)
            source = None if before is None else calls.module(before)
            found = REWRITES[name].replace(source, calls.module(node))
            if found is not None:
                yield name, node, before, found


# The rewrites


def _fold(layer: Any, norm: nn.Module) -> Replaced:
    """Fold a BatchNorm into the layer before it: scale and shift move into weights and bias.

    The input of a BatchNorm after a linear layer is `(batch, features)`.
    """
    statistics: Any = norm
    if type(layer) not in _FOLDS.get(type(norm), ()) or statistics.running_mean is None:
        return None
    folded: Any = copy.deepcopy(layer)
    with torch.no_grad():
        scale = torch.rsqrt(statistics.running_var + statistics.eps)
        scale = scale if statistics.weight is None else scale * statistics.weight
        shift = (
            0 if statistics.bias is None else statistics.bias
        ) - statistics.running_mean * scale
        bias = shift if folded.bias is None else folded.bias * scale + shift
        folded.weight = nn.Parameter(_scaled(folded, scale))
        folded.bias = nn.Parameter(bias)
    return folded, nn.Identity()


_FOLDS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.BatchNorm1d: (nn.Conv1d, nn.ConvTranspose1d, nn.Linear),
    nn.BatchNorm2d: (nn.Conv2d, nn.ConvTranspose2d),
    nn.BatchNorm3d: (nn.Conv3d, nn.ConvTranspose3d),
}


@torch.no_grad()
def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the factor and the summand of each channel in evaluation mode."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    return scale, (0 if norm.bias is None else norm.bias) - norm.running_mean * scale


def _scaled(layer: Any, scale: Tensor) -> Tensor:
    """Return the weights with each output channel scaled.

    Weights are (out, in / groups, ...), for a transposed convolution (in, out / groups, ...).
    """
    weight: Tensor = layer.weight
    if not getattr(layer, "transposed", False):
        return weight * scale.view(-1, *[1] * (weight.dim() - 1))
    groups, spatial = layer.groups, [1] * (weight.dim() - 2)
    parts = weight.view(groups, -1, *weight.shape[1:])
    return (parts * scale.view(groups, 1, -1, *spatial)).view_as(weight)


def _untranspose(before: Before, layer: nn.Module) -> Replaced:
    """Replace a transposed convolution of stride 1 by a plain one with its kernel flipped.

    A padding p, which takes p pixels off the full result, becomes dilation * (kernel - 1) - p.
    """
    if type(layer) is not nn.ConvTranspose2d or layer.stride != (1, 1) or any(layer.output_padding):
        return None
    sizes = zip(layer.dilation, layer.kernel_size, _pair(layer.padding), strict=True)
    padding = tuple(d * (k - 1) - p for d, k, p in sizes)
    if min(padding) < 0:
        return None
    weight = _channels_exchanged(layer.weight, layer.groups).flip(2, 3)
    return before, _like(nn.Conv2d, layer, weight, padding=padding, dilation=layer.dilation)


def _merge_upsampling(upsampling: Before, layer: nn.Module) -> Replaced:
    """Replace nearest x2 and a 3x3 convolution by one 4x4 transposed convolution of stride 2.

    Two of the three products that an output pixel takes along an axis are with the same input
    pixel, so their weights are added: 4 products for 9. An input pixel reaches four output pixels
    along an axis, by the weights w2, w1 + w2, w0 + w1 and w0.
    """
    if not _is_nearest_x2(upsampling) or type(layer) is not nn.Conv2d or not _is_3x3(layer):
        return None
    rows = [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]
    sums = torch.tensor(rows, dtype=layer.weight.dtype, device=layer.weight.device)
    weight = _channels_exchanged(sums @ layer.weight @ sums.T, layer.groups)
    return _like(nn.ConvTranspose2d, layer, weight, stride=2, padding=1), nn.Identity()


def _is_nearest_x2(module: Before) -> bool:
    return (
        isinstance(module, nn.Upsample)
        and type(module) in (nn.Upsample, nn.UpsamplingNearest2d)
        and module.mode in ("nearest", "nearest-exact")
        and module.scale_factor in (2, (2, 2))
    )


def _is_3x3(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((1, 1), "same")
        and layer.padding_mode == "zeros"
    )


def _pool_before_activation(activation: Before, pool: nn.Module) -> Replaced:
    """Pool before a non-decreasing activation, which commutes with the maximum.

    Every window needs a pixel of the map: with padding, dilated windows may have none.
    """
    if type(pool) is not nn.MaxPool2d or pool.return_indices or not _is_increasing(activation):
        return None
    if _pair(pool.dilation) != (1, 1) and _pair(pool.padding) != (0, 0):
        return None
    return pool, activation  # type: ignore[return-value]


def _is_increasing(module: Any) -> bool:
    """Whether a module is an activation that never decreases and does not work in place."""
    slopes = {nn.ELU: "alpha", nn.LeakyReLU: "negative_slope", nn.ReLU: None}
    if type(module) not in slopes or module.inplace:
        return False
    slope = slopes[type(module)]
    return slope is None or getattr(module, slope) >= 0


def _pool_before_pointwise(layer: Before, pool: nn.Module) -> Replaced:
    """Average before a 1x1 convolution: both are linear, and one works on pixels, one on channels.

    The bias commutes with the pooling only where the weights of each window add up to 1.
    """
    if type(layer) is not nn.Conv2d or layer.kernel_size != (1, 1) or layer.stride != (1, 1):
        return None
    if layer.padding not in ((0, 0), "same", "valid") or not _is_average(pool):
        return None
    return (pool, layer) if layer.bias is None or _keeps_constants(pool) else None


def _is_average(module: nn.Module) -> bool:
    return type(module) in (nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def _keeps_constants(pool: Any) -> bool:
    """Whether the average of a constant is this constant, at the border too."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        return True
    inside = _pair(pool.padding) == (0, 0) or not pool.count_include_pad
    return inside and pool.divisor_override is None


def _pair(value: Any) -> tuple[int, int]:
    """Return a setting of a layer for both axes."""
    return value if isinstance(value, tuple) else (value, value)


def _channels_exchanged(weight: Tensor, groups: int) -> Tensor:
    """Exchange input and output channels in each group: plain to transposed weights and back."""
    parts = weight.view(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return parts.flatten(0, 1)


def _like(kind: Any, layer: Any, weight: Tensor, **settings: Any) -> nn.Module:
    """Return a convolution with the channels, groups and bias of a layer, and these weights."""
    shape = layer.in_channels, layer.out_channels, tuple(weight.shape[2:])
    # On the meta device nothing is drawn from the global random state.
    made: nn.Module = kind(*shape, groups=layer.groups, bias=False, device="meta", **settings)
    made.weight = nn.Parameter(weight.detach().contiguous())
    made.bias = layer.bias
    return made


FOLDING = "folding"
REWRITES: dict[str, Rewrite] = {
    FOLDING: Rewrite("BatchNorm folded", _fold),
    "untransposing": Rewrite("transposed convolution made plain", _untranspose),
    "upsampling": Rewrite("upsampling merged with its convolution", _merge_upsampling),
    "max_pooling": Rewrite("max pooling before its activation", _pool_before_activation),
    "average_pooling": Rewrite(
        "average pooling before its 1x1 convolution", _pool_before_pointwise
    ),
}
"""Name -> exact rewrite. They are applied in this order, until none applies any more."""
