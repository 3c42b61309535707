"""The heads between the encoder's last features and the latent's linear layers: one class each.

The methods `operations` and `features` list what a head launches, and count the values it returns
for one image, from the architecture alone, without building the head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from torch import nn

from nas.layers import POINTWISE, norm_activation, normalised
from nas.operation import Operation
from search_spaces.sizes import Size, area


class FeatureHead(Protocol):
    """Builds a head, from `(batch, channels, height, width)` to `(batch, features)`."""

    def __call__(
        self, channels: int, size: Size, head_width: int | None, activation: str
    ) -> nn.Sequential:
        """Return the module."""

    def features(self, channels: int, size: Size, head_width: int | None) -> int:
        """Return the number of values that the module returns for one image."""

    def operations(
        self, channels: int, size: Size, head_width: int | None, activation: str
    ) -> Iterator[Operation]:
        """Yield the operations that the module launches, in order."""


class FlattenHead(nn.Sequential):
    """All features, flattened: `(batch, channels * height * width)`."""

    def __init__(self, channels: int, size: Size, head_width: int | None, activation: str) -> None:
        super().__init__(OrderedDict(flatten=nn.Flatten()))

    @staticmethod
    def features(channels: int, size: Size, head_width: int | None) -> int:
        """Return channels * height * width."""
        return channels * area(size)

    @staticmethod
    def operations(
        channels: int, size: Size, head_width: int | None, activation: str
    ) -> Iterator[Operation]:
        """Yield nothing: flattening is a view."""
        return iter(())


class SqueezeHead(nn.Sequential):
    """A 1x1 convolution to `head_width` channels, BatchNorm, activation, flattened."""

    def __init__(self, channels: int, size: Size, head_width: int | None, activation: str) -> None:
        width = _required(head_width)
        squeeze = normalised(POINTWISE.build(channels, width), width, activation)
        super().__init__(OrderedDict(squeeze=squeeze, flatten=nn.Flatten()))

    @staticmethod
    def features(channels: int, size: Size, head_width: int | None) -> int:
        """Return head_width * height * width."""
        return _required(head_width) * area(size)

    @staticmethod
    def operations(
        channels: int, size: Size, head_width: int | None, activation: str
    ) -> Iterator[Operation]:
        """Yield convolution, BatchNorm and activation."""
        width = _required(head_width)
        yield POINTWISE.operation(channels, width, size)
        yield from norm_activation(width, size, activation)


class GlobalAverageHead(nn.Sequential):
    """The average over height and width: `(batch, channels)`."""

    def __init__(self, channels: int, size: Size, head_width: int | None, activation: str) -> None:
        super().__init__(OrderedDict(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))

    @staticmethod
    def features(channels: int, size: Size, head_width: int | None) -> int:
        """Return `channels`."""
        return channels

    @staticmethod
    def operations(
        channels: int, size: Size, head_width: int | None, activation: str
    ) -> Iterator[Operation]:
        """Yield the average."""
        yield Operation("global_average", channels, channels, size, 1)


def _required(head_width: int | None) -> int:
    return head_width or 0  # never None in a squeeze: `Encoder` refuses it


HEADS: dict[str, FeatureHead] = {
    "flatten": FlattenHead,
    "squeeze": SqueezeHead,
    "global_average": GlobalAverageHead,
}
"""Name -> class that builds the head."""
