"""Run a model on the meta device: shapes without arithmetic, in milliseconds.

`profiling.complexity` and `profiling.memory` count the operations of such passes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Example = Tensor | tuple[Tensor, ...]


def as_args(example: Example) -> tuple[Tensor, ...]:
    """Return the positional arguments of a forward pass as a tuple."""
    return example if isinstance(example, tuple) else (example,)


def tensors_in(tree: Any) -> list[Tensor]:
    """Return all tensors in nested tuples, lists and dicts, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def meta_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model with meta tensors: shapes and types without memory."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        meta = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(meta, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, memo)


def on_meta(example: Example) -> tuple[Tensor, ...]:
    """Return the example's shapes and types as meta tensors."""
    return tuple(torch.empty_like(tensor, device="meta") for tensor in as_args(example))


@contextmanager
def mode_of(model: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode of the whole model in the body, then restore the mode of each module."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def is_view(function: Any) -> bool:
    """Return whether an operation returns only a view of its input (transpose, slice)."""
    returns: Sequence[Any] = function._schema.returns
    return bool(returns) and all(r.alias_info and not r.alias_info.is_write for r in returns)
