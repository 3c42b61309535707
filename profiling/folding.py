"""Fold BatchNorms into the layers before them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn


def fold_batch_norms(model: nn.Module) -> tuple[nn.Module, int, int]:
    """Return a copy without the BatchNorms that directly follow a convolution or linear layer.

    A BatchNorm is folded if the layer's output is its only input and is used nowhere else: its
    scale and shift are moved into the weights and the bias of the layer. The input of a BatchNorm
    after a linear layer must be `(batch, features)`.

    Returns:
        The copy in evaluation mode, the number of folded BatchNorms, and the number of all.

    Raises:
        Exception: torch.fx cannot trace the forward pass (control flow that depends on values).
    """
    folded = copy.deepcopy(model).eval()
    nodes = list(fx.symbolic_trace(folded).graph.nodes)
    modules = dict(folded.named_modules(remove_duplicate=False))
    calls = [id(modules[node.target]) for node in nodes if node.op == "call_module"]
    norms = [m for m in folded.modules() if isinstance(m, tuple(_FOLDS))]
    done = 0
    for node in nodes:
        pair = _foldable(node, modules, calls)
        if pair:
            _fold(*pair)
            folded.set_submodule(node.target, nn.Identity())
            done += 1
    return folded, done, len(norms)


def _foldable(node: fx.Node, modules: dict[str, nn.Module], calls: list[int]) -> Any:
    """Return (layer, norm) if `node` is a BatchNorm that can be folded, else None."""
    if node.op != "call_module" or not node.args:
        return None
    norm, source = modules[str(node.target)], node.args[0]
    if not (isinstance(source, fx.Node) and source.op == "call_module"):
        return None
    layer: Any = modules[str(source.target)]
    if not isinstance(layer, _FOLDS.get(type(norm), ())) or norm.running_mean is None:
        return None
    alone = len(source.users) == 1 and calls.count(id(layer)) == calls.count(id(norm)) == 1
    holders = {id(m) for m in modules.values() for p in m.parameters(False) if p is layer.weight}
    return (layer, norm) if alone and len(holders) == 1 else None


_FOLDS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    nn.BatchNorm1d: (nn.Conv1d, nn.ConvTranspose1d, nn.Linear),
    nn.BatchNorm2d: (nn.Conv2d, nn.ConvTranspose2d),
    nn.BatchNorm3d: (nn.Conv3d, nn.ConvTranspose3d),
}


def _fold(layer: Any, norm: Any) -> None:
    """Apply scale and shift of the norm in evaluation mode to weights and bias of the layer."""
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var + norm.eps)
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (0 if norm.bias is None else norm.bias) - norm.running_mean * scale
        bias = shift if layer.bias is None else layer.bias * scale + shift
        layer.weight = nn.Parameter(_scaled(layer, scale))
        layer.bias = nn.Parameter(bias)


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
