"""Count the MACs, bytes and launches of a forward pass from the shapes of its tensors.

A MAC is one multiply-add; FLOPs are 2 x MACs. Only convolutions and matrix products (linear layers)
have MACs. Bias additions, normalisation, activations, pooling, resampling and concatenation have
none; such operations are listed. Convolutions are counted by fvcore's formula.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from profiling.errors import ProfilingError
from profiling.kinds import KindGroup
from profiling.operations import FREE, MACS, kind_group
from profiling.symbolic import (
    Example,
    as_args,
    is_view,
    meta_copy,
    mode_of,
    on_meta,
    tensors_in,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModuleCost:
    """The costs of one module in one forward pass, without those of its children.

    Attributes:
        path: Path of the module in the model.
        module: Name of its class.
        kind: Kind of its heaviest operation: most MACs, then most bytes.
        input_shape, output_shape: Shapes of the first tensors of its first call.
        params: Its own parameters.
        macs: Multiply-adds.
        activations: Elements that its operations write.
        bytes_read, bytes_written: Bytes of operands and results, each once per operation, without
            effects of caches.
        launches: Operations launched.
        calls: Calls of the module.
    """

    path: str
    module: str
    kind: KindGroup
    input_shape: Shape
    output_shape: Shape
    params: int
    macs: int
    activations: int
    bytes_read: int
    bytes_written: int
    launches: int
    calls: int

    @property
    def bytes_moved(self) -> int:
        """Bytes read plus bytes written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOPs per byte moved; 0 if no bytes are moved."""
        return 2 * self.macs / self.bytes_moved if self.bytes_moved else 0.0


@dataclass(frozen=True)
class Complexity:
    """The costs of a model in one forward pass of an example batch; totals are sums of its rows.

    Attributes:
        params: Parameters of the model.
        rows: The costs of each module that launches an operation or has no children.
        uncounted_ops: Operation -> number of launches, for operations without MACs.
        convention: What counts as a MAC.
    """

    params: int
    rows: tuple[ModuleCost, ...]
    uncounted_ops: Mapping[str, int]
    convention: Literal["1 MAC = 1 multiply-add of a convolution or matrix product"] = field(
        default="1 MAC = 1 multiply-add of a convolution or matrix product"
    )

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of all convolutions and matrix products."""
        return sum(row.macs for row in self.rows)

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x MACs."""
        return 2 * self.macs

    @cached_property
    def activations(self) -> int:
        """Elements written by all operations."""
        return sum(row.activations for row in self.rows)

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of all operands of all operations, weights included."""
        return sum(row.bytes_read for row in self.rows)

    @cached_property
    def bytes_written(self) -> int:
        """Bytes of all results of all operations."""
        return sum(row.bytes_written for row in self.rows)

    @cached_property
    def launches(self) -> int:
        """Operations launched; views launch nothing."""
        return sum(row.launches for row in self.rows)

    def under(self, path: str) -> tuple[ModuleCost, ...]:
        """Return the rows of the module at `path` and of all modules inside it."""
        return tuple(r for r in self.rows if r.path == path or r.path.startswith(path + "."))


def complexity(model: nn.Module, example: Example) -> Complexity:
    """Count the costs of one inference pass of `model` on `example`.

    A copy is run on the meta device, without arithmetic and without memory for activations. A model
    that cannot run there, because it reads values of tensors, is run itself instead.

    Raises:
        ProfilingError: the forward pass fails on this example.
    """
    try:
        return _count(meta_copy(model), on_meta(example))
    except (NotImplementedError, RuntimeError) as error:
        return _count_as_it_is(model, as_args(example), error)


def _count_as_it_is(model: nn.Module, args: tuple[Tensor, ...], error: Exception) -> Complexity:
    """Run the model itself after `error` on the meta device, unless it has meta tensors."""
    if not any(tensor.is_meta for tensor in (*args, *model.parameters())):
        try:
            with torch.random.fork_rng():
                return _count(model, args)
        except RuntimeError as second:
            error = second
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in args)
    raise ProfilingError(
        f"complexity: {type(model).__name__} cannot take an example of shape {shapes}: "
        f"{str(error).splitlines()[0]}"
    ) from error


def _count(model: nn.Module, args: tuple[Tensor, ...]) -> Complexity:
    counter = _Counter(model)
    try:
        with mode_of(model, training=False), torch.no_grad(), counter:
            model(*args)
    finally:
        counter.remove_hooks()
    params = sum(parameter.numel() for parameter in model.parameters())
    return Complexity(params, counter.rows(), dict(counter.uncounted))


@dataclass
class _Tally:
    """The costs of a module while they are counted."""

    module: nn.Module
    input_shape: Shape = ()
    output_shape: Shape = ()
    macs: int = 0
    activations: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    launches: int = 0
    calls: int = 0
    heaviest: tuple[tuple[int, int], KindGroup] = ((-1, -1), "other")


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the costs of every launched operation to the innermost running module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.uncounted: Counter[str] = Counter()
        self._tallies: dict[str, _Tally] = {}
        self._running: list[_Tally] = []
        self._hooks = [
            hook for path, module in model.named_modules() for hook in self._watch(path, module)
        ]

    def remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def rows(self) -> tuple[ModuleCost, ...]:
        return tuple(
            _row(path, tally)
            for path, tally in self._tallies.items()
            if tally.launches or not any(tally.module.children())
        )

    def _watch(self, path: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        def enter(module: nn.Module, args: Any) -> None:
            tally = self._tallies.setdefault(path, _Tally(module, _first_shape(args)))
            tally.calls += 1
            self._running.append(tally)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            tally = self._running.pop()
            tally.output_shape = tally.output_shape or _first_shape(output)

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        results = tensors_in(output)
        if results and not is_view(func) and func._schema.name not in FREE:
            self._book(func, args, tensors_in((args, kwargs)), results)
        return output

    def _book(self, func: Any, args: Any, operands: list[Tensor], results: list[Tensor]) -> None:
        name = func._schema.name
        formula = MACS.get(name)
        macs = formula(args, results[0]) if formula else 0
        read, written = sum(map(_bytes, operands)), sum(map(_bytes, results))
        tally = self._running[-1]
        tally.macs += macs
        tally.activations += sum(tensor.numel() for tensor in results)
        tally.bytes_read += read
        tally.bytes_written += written
        tally.launches += 1
        weight = (macs, read + written)
        if weight > tally.heaviest[0]:
            tally.heaviest = (weight, kind_group(name, args))
        if formula is None:
            self.uncounted[name] += 1


def _row(path: str, tally: _Tally) -> ModuleCost:
    own_params = sum(p.numel() for p in tally.module.parameters(recurse=False))
    return ModuleCost(
        path=path,
        module=type(tally.module).__name__,
        kind=tally.heaviest[1],
        input_shape=tally.input_shape,
        output_shape=tally.output_shape,
        params=own_params,
        macs=tally.macs,
        activations=tally.activations,
        bytes_read=tally.bytes_read,
        bytes_written=tally.bytes_written,
        launches=tally.launches,
        calls=tally.calls,
    )


def _first_shape(tree: Any) -> Shape:
    tensors = tensors_in(tree)
    return tuple(tensors[0].shape) if tensors else ()


def _bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; an expanded dimension (stride 0) is stored once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, stride in sizes if stride or n == 0) * tensor.element_size()
