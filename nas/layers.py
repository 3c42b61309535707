"""The layers of blocks: convolutions, activations and changes of size.

Every entry of the tables `ACTIVATIONS`, `OPERATORS`, `DOWNSAMPLING`, `UPSAMPLING` and
`CONVOLUTIONS` builds a module, and the same class lists the operations that the module launches.
The keys are the values in `search_spaces.architecture.CHOICES`. Tensors are
`(batch, channels, height, width)`; `size` is that of a feature map.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from nas.operation import Operation
from profiling.kinds import OperationKind
from search_spaces.architecture import Stage
from search_spaces.sizes import Size, enlarged, reduced, sides, size_in_words

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


class ConvLayer(NamedTuple):
    """One convolution. Stride 1 keeps height and width, stride 2 halves them, rounding up.

    A transposed convolution of stride 2 doubles them; its kernel size must then be even.
    """

    kernel: int
    stride: int = 1
    transposed: bool = False

    def build(self, channels: int, width: int, groups: int = 1) -> nn.Module:
        """Return the module, from `channels` to `width` channels."""
        make = nn.ConvTranspose2d if self.transposed else nn.Conv2d
        padding = (self.kernel - 1) // 2
        return make(channels, width, self.kernel, self.stride, padding, groups=groups)

    def operation(self, channels: int, width: int, size: Size, groups: int = 1) -> Operation:
        """Return what the module launches on maps of `size`."""
        # A depthwise convolution of one channel has one group and is an ordinary convolution.
        kind: OperationKind = "pointwise" if self.kernel == 1 else "convolution"
        if groups > 1:
            kind = "depthwise"
        kind = _TRANSPOSED_KINDS[kind] if self.transposed else kind
        after = self.size_after(size)
        return Operation(kind, channels, width, size, after, self.kernel, self.stride, groups)

    def size_after(self, size: Size) -> Size:
        """Return the size of the output for an input of `size`."""
        change = enlarged if self.transposed else reduced
        return change(size, self.stride)


_TRANSPOSED_KINDS: dict[OperationKind, OperationKind] = {
    "convolution": "transposed",
    "depthwise": "depthwise_transposed",
    "pointwise": "pointwise_transposed",
}

POINTWISE = ConvLayer(1)

OPERATORS: dict[str, ConvLayer] = {
    "convolution": ConvLayer(3),
    "transposed": ConvLayer(3, transposed=True),
}
"""3x3 layers that keep height and width."""


@dataclass(frozen=True, eq=False)
class Resize:
    """A module without parameters that halves (rounding up) or doubles height and width."""

    kind: OperationKind
    build: Callable[[], nn.Module]

    def operation(self, channels: int, width: int, size: Size) -> Operation:
        """Return what the module launches on maps of `size`."""
        after = reduced(size, 2) if self.kind.endswith("_pool") else enlarged(size, 2)
        return Operation(self.kind, channels, width, size, after, kernel=2, stride=2)


@dataclass(frozen=True, eq=False)
class Resampling:
    """The change of size of a stage: in its last convolution, in a module after it, or in both.

    Attributes:
        layer: Replaces the last convolution of a plain stage, or the 1x1 transition of a dense one.
        expansion: Factor of the output channels of that last convolution.
        after: The module that follows the block.
    """

    layer: ConvLayer | None = None
    expansion: int = 1
    after: Resize | None = None

    def append_to(self, stage: nn.Sequential) -> None:
        """Add the module that follows the block, if there is one."""
        if self.after:
            stage.add_module("resampling", self.after.build())

    def operations(self, channels: int, width: int, size: Size) -> Iterator[Operation]:
        """Yield the operation of the module that follows the block, if there is one."""
        if self.after:
            yield self.after.operation(channels, width, size)


DOWNSAMPLING: dict[str, Resampling] = {
    "max": Resampling(after=Resize("max_pool", partial(nn.MaxPool2d, 2, ceil_mode=True))),
    "average": Resampling(after=Resize("average_pool", partial(nn.AvgPool2d, 2, ceil_mode=True))),
    "strided": Resampling(layer=ConvLayer(3, stride=2)),
}
"""Halve height and width, rounding up; a window at the border pools the pixels inside the map."""

UPSAMPLING: dict[str, Resampling] = {
    "nearest": Resampling(after=Resize("upsample", partial(nn.Upsample, scale_factor=2))),
    "transposed": Resampling(layer=ConvLayer(4, stride=2, transposed=True)),
    "pixel_shuffle": Resampling(
        expansion=4, after=Resize("pixel_shuffle", partial(nn.PixelShuffle, 2))
    ),
}
"""Double height and width."""


class StageLayers(NamedTuple):
    """The kinds of layers in a stage.

    Attributes:
        activation: Key of `ACTIVATIONS`.
        operator: The convolution that keeps the size.
        transition: The 1x1 layer of a dense stage.
        resampling: The change of size at the end.
    """

    activation: str
    operator: ConvLayer
    transition: ConvLayer
    resampling: Resampling

    def convolutions(self, stage: Stage) -> list[tuple[ConvLayer, int]]:
        """Return (convolution, output channels) of each layer; the last one may resample."""
        kept = (self.operator, stage.width)
        last = (self.resampling.layer or self.operator, stage.width * self.resampling.expansion)
        return [kept] * (stage.layers - 1) + [last]


class ConvolutionKind(Protocol):
    """A class that builds a convolution from `channels` to `width`, and lists its operations."""

    def __call__(
        self, channels: int, width: int, layer: ConvLayer, activation: str
    ) -> nn.Sequential:
        """Return the module."""

    def operations(
        self, channels: int, width: int, size: Size, layer: ConvLayer, activation: str
    ) -> Iterator[Operation]:
        """Yield the operations that the module launches on maps of `size`, in order."""


class Standard(nn.Sequential):
    """One full 3x3 convolution."""

    def __init__(self, channels: int, width: int, layer: ConvLayer, activation: str) -> None:
        super().__init__(OrderedDict(spatial=layer.build(channels, width)))

    @staticmethod
    def operations(
        channels: int, width: int, size: Size, layer: ConvLayer, activation: str
    ) -> Iterator[Operation]:
        """Yield one convolution."""
        yield layer.operation(channels, width, size)


class DepthwiseFirst(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, nothing in between (Xception, Chollet 2017)."""

    def __init__(self, channels: int, width: int, layer: ConvLayer, activation: str) -> None:
        super().__init__(
            OrderedDict(
                depthwise=layer.build(channels, channels, groups=channels),
                pointwise=POINTWISE.build(channels, width),
            )
        )

    @staticmethod
    def operations(
        channels: int, width: int, size: Size, layer: ConvLayer, activation: str
    ) -> Iterator[Operation]:
        """Yield the depthwise and the pointwise convolution."""
        yield layer.operation(channels, channels, size, groups=channels)
        yield POINTWISE.operation(channels, width, layer.size_after(size))


class PointwiseFirst(nn.Sequential):
    """Pointwise 1x1, BatchNorm, activation, then depthwise 3x3 (the paper's published code)."""

    def __init__(self, channels: int, width: int, layer: ConvLayer, activation: str) -> None:
        super().__init__(
            OrderedDict(
                pointwise=POINTWISE.build(channels, width),
                norm=nn.BatchNorm2d(width),
                activation=ACTIVATIONS[activation](),
                depthwise=layer.build(width, width, groups=width),
            )
        )

    @staticmethod
    def operations(
        channels: int, width: int, size: Size, layer: ConvLayer, activation: str
    ) -> Iterator[Operation]:
        """Yield the pointwise convolution, BatchNorm, activation and depthwise convolution."""
        yield POINTWISE.operation(channels, width, size)
        yield from norm_activation(width, size, activation)
        yield layer.operation(width, width, size, groups=width)


CONVOLUTIONS: dict[str, ConvolutionKind] = {
    "standard": Standard,
    "depthwise_first": DepthwiseFirst,
    "pointwise_first": PointwiseFirst,
}


def normalised(convolution: nn.Module, width: int, activation: str) -> nn.Sequential:
    """Return [convolution, BatchNorm of `width` channels, activation]."""
    norm, function = nn.BatchNorm2d(width), ACTIVATIONS[activation]()
    return nn.Sequential(OrderedDict(convolution=convolution, norm=norm, activation=function))


@lru_cache(1 << 12)  # the most frequent operations: equal ones share one object
def norm_activation(channels: int, size: Size, activation: str) -> tuple[Operation, Operation]:
    """Return the operations of BatchNorm and the activation after it."""
    shape = channels, channels, size, size
    return Operation("batch_norm", *shape), Operation("activation", *shape, function=activation)


class Concat(nn.Module):
    """Concatenate two feature maps along the channels."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return `(batch, c1 + c2, height, width)`."""
        return torch.cat((first, second), dim=1)


class Crop(nn.Module):
    """Keep the first `size` rows and columns."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, channels, height, width)`, a view."""
        height, width = sides(self.size)
        return features[:, :, :height, :width]

    def extra_repr(self) -> str:
        """Show the size in the module's description."""
        return f"size={size_in_words(self.size)}"
