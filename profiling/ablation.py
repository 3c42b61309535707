"""Copies of a model without one kind of operation, to measure the time of that kind.

The difference to the intact model is the cost of that kind of operation, including launches and
waits for memory. It is measured, not predicted by a model of the machine.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from profiling.complexity import Complexity, ModuleCost, complexity
from profiling.errors import ProfilingError
from profiling.kinds import KindGroup
from profiling.symbolic import Example, as_args, mode_of, on_meta, tensors_in

_PASS_THROUGH: tuple[KindGroup, ...] = ("batch_norm", "activation")


class Ready(nn.Module):
    """Returns the same tensor at every call, for any input; no operation is launched."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self._tensor = tensor

    def forward(self, *inputs: Any) -> Tensor:
        """Return the tensor, unchanged."""
        return self._tensor


@dataclass(frozen=True)
class Counts:
    """Counts of one pass of a model, in total and by kind of operation.

    `calls` is the number of module calls.
    """

    params: int
    macs: int
    bytes_moved: int
    launches: int
    calls: int
    macs_of: Mapping[KindGroup, int]
    launches_of: Mapping[KindGroup, int]
    bytes_of: Mapping[KindGroup, int]


class Ablation:
    """Makes copies of `model` without chosen kinds of operation; the copies share its tensors.

    A module without children is replaced if its heaviest operation is of such a kind: a BatchNorm
    or an activation that keeps the shape by `Identity`, others by a module that returns a tensor of
    the same shape. These tensors are views of one buffer, so that the cache contains them as with
    an allocator that reuses memory. The buffer has the values of the model's largest output,
    because the time of some operations depends on the values. Module calls remain, with the time of
    Python in them. The outputs of a copy have no meaning.

    Raises:
        ProfilingError: the model does not accept the example.
    """

    def __init__(self, model: nn.Module, example: Example) -> None:
        self._model, self._example = model, as_args(example)
        self.cost: Complexity = complexity(model, on_meta(example))

    @cached_property
    def kinds(self) -> frozenset[KindGroup]:
        """The kinds that `without` can remove from this model."""
        return frozenset(row.kind for row in self.cost.rows if self._is_leaf(row))

    @cached_property
    def counts(self) -> Counts:
        """Counts of one pass."""
        macs: Counter[KindGroup] = Counter()
        launches: Counter[KindGroup] = Counter()
        moved: Counter[KindGroup] = Counter()
        for row in self.cost.rows:
            macs[row.kind] += row.macs
            launches[row.kind] += row.launches
            moved[row.kind] += row.bytes_moved
        total = (self.cost.params, self.cost.macs, moved.total(), self.cost.launches)
        return Counts(*total, self._calls(), dict(macs), dict(launches), dict(moved))

    def without(self, *kinds: KindGroup) -> nn.Module:
        """Return a copy in evaluation mode without the operations of these kinds.

        Raises:
            ProfilingError: a module to be replaced is called more than once in a pass.
        """
        tensors = (*self._model.parameters(), *self._model.buffers())
        ablated = copy.deepcopy(self._model, {id(tensor): tensor for tensor in tensors}).eval()
        for row in self.cost.rows:
            if row.kind in kinds and self._is_leaf(row):
                ablated = _replaced(ablated, row.path, self._stand_in(row))
        return ablated

    def _is_leaf(self, row: ModuleCost) -> bool:
        module = self._model.get_submodule(row.path)
        return row.launches > 0 and not any(module.children())

    def _stand_in(self, row: ModuleCost) -> nn.Module:
        if row.kind in _PASS_THROUGH and row.input_shape == row.output_shape:
            return nn.Identity()
        if row.calls > 1:
            raise ProfilingError(
                f"ablation: {row.path} ({row.module}) is called {row.calls} times in a pass, "
                "and its outputs may differ in shape: give each call a module of its own"
            )
        return Ready(self._buffer[: math.prod(row.output_shape)].view(row.output_shape))

    @cached_property
    def _buffer(self) -> Tensor:
        """Run the model once and return the largest output of its modules, flattened."""
        largest = max(self.cost.rows, key=lambda row: math.prod(row.output_shape))
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: Any, output: Any) -> None:
            caught.append(tensors_in(output)[0].detach().flatten().clone())

        hook = self._model.get_submodule(largest.path).register_forward_hook(catch)
        devices = {tensor.device for tensor in self._example if tensor.is_cuda}
        try:
            with (
                torch.random.fork_rng(devices=devices),
                mode_of(self._model, training=False),
                torch.no_grad(),
            ):
                self._model(*self._example)
        finally:
            hook.remove()
        return caught[0]

    def _calls(self) -> int:
        """Return the number of module calls; a module without a row counts once."""
        rows = {row.path: row.calls for row in self.cost.rows}
        parents = {""} | {
            path[:end] for path in rows for end, letter in enumerate(path) if letter == "."
        }
        return sum(rows.values()) + len(parents - rows.keys())


def _replaced(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    if not path:
        return module
    model.set_submodule(path, module)
    return model
