"""One operation of a network as a value: its kind, its shape and its costs. It needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Self

from profiling.kinds import WEIGHTED_KINDS, OperationKind
from search_spaces.sizes import Size, area

_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_REPARAMETERISE = 5, 7, 5  # launches, tensors read, tensors written


class Operation(NamedTuple):
    """One operation, from `channels_in` maps of `size_in` to `channels_out` of `size_out`.

    Attributes:
        kind: Kind of operation.
        channels_in: Input channels; for a concatenation those of its first input.
        channels_out: Output channels.
        size_in: Size of the input maps; 1 for linear layers.
        size_out: Size of the output maps.
        kernel: Height and width of the kernel.
        stride: Stride in both directions.
        groups: Groups of channels of a convolution.
        function: Name of an activation ("elu", "sigmoid"); "" for other kinds.
    """

    kind: OperationKind
    channels_in: int
    channels_out: int
    size_in: Size
    size_out: Size
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    function: str = ""

    @property
    def weights(self) -> int:
        """Number of weights, without the bias."""
        if self.kind not in WEIGHTED_KINDS:
            return 0
        return self.channels_in * self.channels_out // self.groups * self.kernel**2

    @property
    def params(self) -> int:
        """Number of trainable parameters."""
        if self.kind == "batch_norm":
            return 2 * self.channels_out
        return self.weights + self.channels_out if self.weights else 0

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, as `profiling.complexity` counts them."""
        transposed = self.kind.endswith("transposed")
        return self.weights * area(self.size_in if transposed else self.size_out)

    @property
    def launches(self) -> int:
        """Number of launches."""
        return _REPARAMETERISE[0] if self.kind == "reparameterise" else 1

    @property
    def elements_in(self) -> int:
        """Number of elements of the feature maps read for one image."""
        if self.kind == "concatenation":
            return self.elements_out
        tensors = _REPARAMETERISE[1] if self.kind == "reparameterise" else 1
        return tensors * self.channels_in * area(self.size_in)

    @property
    def elements_out(self) -> int:
        """Number of elements of the feature maps written for one image."""
        tensors = _REPARAMETERISE[2] if self.kind == "reparameterise" else 1
        return tensors * self.channels_out * area(self.size_out)

    def bytes_moved(self, batch: int = 1) -> int:
        """Return the bytes of all operands and results, each once.

        Max pooling also writes the indices of the maxima.
        """
        # A BatchNorm also reads its running mean and variance, and writes those of the batch.
        constants = 3 * self.params if self.kind == "batch_norm" else self.params
        moved = (constants + batch * (self.elements_in + self.elements_out)) * _FLOAT_BYTES
        indices = batch * self.elements_out if self.kind == "max_pool" else 0
        return moved + indices * _INDEX_BYTES


@dataclass(frozen=True, eq=False)
class OperationGroup:
    """The operations of a part of a network, such as a stage, with their total costs.

    Groups are compared by identity, so callers keep one object for equal groups.

    Attributes:
        operations: In the order they run.
        params: Trainable parameters of all of them.
        macs: Multiply-adds of all of them for one image.
        launches: Launches of all of them.
    """

    operations: tuple[Operation, ...]
    params: int
    macs: int
    launches: int

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Self:
        """Return the group of some operations."""
        every = tuple(operations)
        nothing = 0, 0, 0
        return cls(every, *map(sum, zip(nothing, *map(_costs, every), strict=True)))


@lru_cache(1 << 15)  # architectures of one space share most of their operations
def _costs(operation: Operation) -> tuple[int, int, int]:
    return operation.params, operation.macs, operation.launches
