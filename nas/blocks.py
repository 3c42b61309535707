"""The parts that networks are made of: one small class per block, convolution kind and head.

Every value that `search_spaces.architecture.CHOICES` allows is a key of one table here:
`ACTIVATIONS`, `OPERATORS`, `DOWNSAMPLING`, `UPSAMPLING`, `CONVOLUTIONS`, `BLOCKS`, `HEADS`. A new
choice is one class or one line, and its line in a table. All work is done by modules, one instance
per call, so that hooks and traces can attribute every operation. Tensors are
`(batch, channels, height, width)`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from search_spaces.architecture import Stage

Layer = Callable[..., nn.Module]
"""Makes a convolution from (channels in, channels out) and, as a keyword, `groups`."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}

OPERATORS: dict[str, Layer] = {
    "convolution": partial(nn.Conv2d, kernel_size=3, padding=1),
    "transposed": partial(nn.ConvTranspose2d, kernel_size=3, padding=1),
}
"""3x3 layers that keep height and width."""


@dataclass(frozen=True)
class Resampling:
    """Where a stage changes size: in its last convolution, in a module after it, or in both.

    `layer` takes the place of the last convolution's 3x3 (of a dense stage's 1x1 transition);
    `expansion` multiplies the channels that last convolution yields; `after` makes the module that
    follows.
    """

    layer: Layer | None = None
    expansion: int = 1
    after: Callable[[], nn.Module] | None = None


DOWNSAMPLING: dict[str, Resampling] = {
    "max": Resampling(after=partial(nn.MaxPool2d, 2, ceil_mode=True)),
    "average": Resampling(after=partial(nn.AvgPool2d, 2, ceil_mode=True)),
    "strided": Resampling(layer=partial(nn.Conv2d, kernel_size=3, stride=2, padding=1)),
}
"""Halve height and width, rounding up; partial windows at the border pool what is there."""

UPSAMPLING: dict[str, Resampling] = {
    "nearest": Resampling(after=partial(nn.Upsample, scale_factor=2)),
    "transposed": Resampling(layer=partial(nn.ConvTranspose2d, kernel_size=4, stride=2, padding=1)),
    "pixel_shuffle": Resampling(expansion=4, after=partial(nn.PixelShuffle, 2)),
}
"""Double height and width."""


@dataclass(frozen=True)
class Kit:
    """What a stage's layers are made of, the same for all layers of the stage.

    `operator` makes 3x3 layers that keep the size, `transition` a dense stage's 1x1 layer.
    """

    activation: Callable[[], nn.Module]
    operator: Layer
    transition: Layer
    resampling: Resampling


class Standard(nn.Sequential):
    """One full 3x3 convolution."""

    def __init__(self, channels: int, width: int, layer: Layer, kit: Kit) -> None:
        super().__init__(OrderedDict(spatial=layer(channels, width)))


class DepthwiseFirst(nn.Sequential):
    """Depthwise 3x3, then pointwise 1x1, nothing in between (Xception)."""

    def __init__(self, channels: int, width: int, layer: Layer, kit: Kit) -> None:
        super().__init__(
            OrderedDict(
                depthwise=layer(channels, channels, groups=channels),
                pointwise=nn.Conv2d(channels, width, 1),
            )
        )


class PointwiseFirst(nn.Sequential):
    """Pointwise 1x1, BatchNorm, activation, then depthwise 3x3 (the paper's published code)."""

    def __init__(self, channels: int, width: int, layer: Layer, kit: Kit) -> None:
        super().__init__(
            OrderedDict(
                pointwise=nn.Conv2d(channels, width, 1),
                norm=nn.BatchNorm2d(width),
                activation=kit.activation(),
                depthwise=layer(width, width, groups=width),
            )
        )


CONVOLUTIONS: dict[str, Callable[[int, int, Layer, Kit], nn.Module]] = {
    "standard": Standard,
    "depthwise_first": DepthwiseFirst,
    "pointwise_first": PointwiseFirst,
}


class Concat(nn.Module):
    """Join two feature maps along the channels."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return `(batch, c1 + c2, height, width)`."""
        return torch.cat((first, second), dim=1)


class Crop(nn.Module):
    """Keep the first `size` rows and columns."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, channels, size, size)`, a view."""
        return features[:, :, : self.size, : self.size]

    def extra_repr(self) -> str:
        """Show the size in the module's description."""
        return f"size={self.size}"


class Block(nn.Module):
    """Layers one after the other, all at one resolution."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Apply each layer to what the one before it returned."""
        return self.layers(features)  # type: ignore[no-any-return]


class DenseLayer(nn.Module):
    """BatchNorm, activation, convolution to `growth_rate` channels, joined to the input."""

    def __init__(self, channels: int, growth_rate: int, convolution: str, kit: Kit) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.activation = kit.activation()
        self.convolution = CONVOLUTIONS[convolution](channels, growth_rate, kit.operator, kit)
        self.concat = Concat()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, channels + growth_rate, height, width)`, the input first."""
        new = self.convolution(self.activation(self.norm(features)))
        return self.concat(features, new)  # type: ignore[no-any-return]


class PlainStage(nn.Sequential):
    """`layers` x [convolution, BatchNorm, activation], then the resampling."""

    def __init__(self, channels: int, stage: Stage, kit: Kit) -> None:
        kept = (kit.operator, stage.width)
        last = (kit.resampling.layer or kit.operator, stage.width * kit.resampling.expansion)
        layers: list[nn.Module] = []
        for layer, width in [kept] * (stage.layers - 1) + [last]:
            convolution = CONVOLUTIONS[stage.convolution](channels, width, layer, kit)
            layers.append(normalised(convolution, width, kit.activation))
            channels = width
        super().__init__(OrderedDict(block=Block(layers)))
        _resample(self, kit)


class DenseStage(nn.Sequential):
    """A DenseNet block: each layer sees the input and all earlier layers. Then its transition.

    The transition is BatchNorm, activation, 1x1 layer to `width` channels, then the resampling.
    """

    def __init__(self, channels: int, stage: Stage, kit: Kit) -> None:
        growth = stage.growth_rate or 0  # never None here: `Stage` refuses it
        inputs = [channels + i * growth for i in range(stage.layers + 1)]
        layers = [DenseLayer(seen, growth, stage.convolution, kit) for seen in inputs[:-1]]
        transition = self._transition(inputs[-1], stage, kit)
        super().__init__(OrderedDict(block=Block([*layers]), transition=transition))
        _resample(self, kit)

    @staticmethod
    def _transition(channels: int, stage: Stage, kit: Kit) -> nn.Sequential:
        width, layer = stage.width * kit.resampling.expansion, kit.resampling.layer
        return nn.Sequential(
            OrderedDict(
                norm=nn.BatchNorm2d(channels),
                activation=kit.activation(),
                convolution=CONVOLUTIONS[stage.convolution](channels, width, layer, kit)
                if layer
                else kit.transition(channels, width),
            )
        )


BLOCKS: dict[str, Callable[[int, Stage, Kit], nn.Sequential]] = {
    "plain": PlainStage,
    "dense": DenseStage,
}
"""Make a stage from its input channels; its output has `stage.width` channels."""


class Head(nn.Sequential):
    """Features `(batch, channels, size, size)` to `(batch, features)`."""

    features: int


class FlattenHead(Head):
    """All features, flattened: `(batch, channels * size * size)`."""

    def __init__(self, channels: int, size: int, head_width: int | None, kit: Kit) -> None:
        super().__init__(OrderedDict(flatten=nn.Flatten()))
        self.features = channels * size * size


class SqueezeHead(Head):
    """A 1x1 convolution to `head_width` channels, BatchNorm, activation, flattened."""

    def __init__(self, channels: int, size: int, head_width: int | None, kit: Kit) -> None:
        width = head_width or 0  # never None here: `Encoder` refuses it
        squeeze = normalised(nn.Conv2d(channels, width, 1), width, kit.activation)
        super().__init__(OrderedDict(squeeze=squeeze, flatten=nn.Flatten()))
        self.features = width * size * size


class GlobalAverageHead(Head):
    """The average over height and width: `(batch, channels)`."""

    def __init__(self, channels: int, size: int, head_width: int | None, kit: Kit) -> None:
        super().__init__(OrderedDict(average=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
        self.features = channels


HEADS: dict[str, Callable[[int, int, int | None, Kit], Head]] = {
    "flatten": FlattenHead,
    "squeeze": SqueezeHead,
    "global_average": GlobalAverageHead,
}
"""Make a head from its input channels, height (= width) and `head_width`."""


def normalised(
    convolution: nn.Module, width: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Return [convolution, BatchNorm of `width` channels, activation]."""
    return nn.Sequential(
        OrderedDict(convolution=convolution, norm=nn.BatchNorm2d(width), activation=activation())
    )


def _resample(stage: nn.Sequential, kit: Kit) -> None:
    if kit.resampling.after:
        stage.add_module("resampling", kit.resampling.after())
