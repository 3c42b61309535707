"""The blocks of a stage: one small class each, with the operations that it launches beside it.

A new block is one class and one line in `BLOCKS`, after its name in `search_spaces.architecture`.
All work is done by modules, one instance per call, so that hooks and traces can attribute every
operation; `operations` says of the architecture alone what a built stage launches, and tests hold
the two together. Tensors are `(batch, channels, height, width)`; `size` is height and width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from nas.layers import (
    ACTIVATIONS,
    CONVOLUTIONS,
    Concat,
    StageLayers,
    norm_activation,
    normalised,
)
from nas.operation import Operation
from search_spaces.architecture import Stage


class StageBlock(Protocol):
    """A class that makes a stage, with what an instance launches."""

    def __call__(self, channels: int, stage: Stage, layers: StageLayers) -> nn.Sequential:
        """Return the module from `channels` to `stage.width` channels."""

    def operations(
        self, channels: int, size: int, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield what the module launches on maps of `size`, in order."""


class LayerSequence(nn.Module):
    """Layers one after the other, all at one resolution."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Apply each layer to what the one before it returned."""
        return self.layers(features)  # type: ignore[no-any-return]


class PlainStage(nn.Sequential):
    """`layers` x [convolution, BatchNorm, activation], then the resampling."""

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        built: list[nn.Module] = []
        for layer, width in layers.convolutions(stage):
            make = CONVOLUTIONS[stage.convolution]
            convolution = make(channels, width, layer, layers.activation)
            built.append(normalised(convolution, width, layers.activation))
            channels = width
        super().__init__(OrderedDict(block=LayerSequence(built)))
        layers.resampling.append_to(self)

    @staticmethod
    def operations(
        channels: int, size: int, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield convolution, BatchNorm and activation of each layer, then the resampling."""
        kind, activation = CONVOLUTIONS[stage.convolution], layers.activation
        for layer, width in layers.convolutions(stage):
            yield from kind.operations(channels, width, size, layer, activation)
            channels, size = width, layer.size_after(size)
            yield from norm_activation(channels, size, activation)
        yield from layers.resampling.operations(channels, stage.width, size)


class DenseLayer(nn.Module):
    """BatchNorm, activation, convolution to `growth_rate` channels, joined to the input."""

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        super().__init__()
        growth, make = _growth(stage), CONVOLUTIONS[stage.convolution]
        self.norm = nn.BatchNorm2d(channels)
        self.activation = ACTIVATIONS[layers.activation]()
        self.convolution = make(channels, growth, layers.operator, layers.activation)
        self.concat = Concat()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, channels + growth_rate, height, width)`, the input first."""
        new = self.convolution(self.activation(self.norm(features)))
        return self.concat(features, new)  # type: ignore[no-any-return]

    @staticmethod
    def operations(
        channels: int, size: int, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield BatchNorm, activation, convolution and concatenation."""
        growth, kind = _growth(stage), CONVOLUTIONS[stage.convolution]
        yield from norm_activation(channels, size, layers.activation)
        yield from kind.operations(channels, growth, size, layers.operator, layers.activation)
        yield Operation("concatenation", channels, channels + growth, size, size)


class DenseStage(nn.Sequential):
    """A DenseNet block: each layer sees the input and all earlier layers. Then its transition.

    The transition is BatchNorm, activation, 1x1 layer to `width` channels, then the resampling.
    """

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        inputs = [channels + i * _growth(stage) for i in range(stage.layers + 1)]
        block = LayerSequence([DenseLayer(seen, stage, layers) for seen in inputs[:-1]])
        transition = self._transition(inputs[-1], stage, layers)
        super().__init__(OrderedDict(block=block, transition=transition))
        layers.resampling.append_to(self)

    @staticmethod
    def _transition(channels: int, stage: Stage, layers: StageLayers) -> nn.Sequential:
        width, layer = stage.width * layers.resampling.expansion, layers.resampling.layer
        make, activation = CONVOLUTIONS[stage.convolution], layers.activation
        return nn.Sequential(
            OrderedDict(
                norm=nn.BatchNorm2d(channels),
                activation=ACTIVATIONS[activation](),
                convolution=make(channels, width, layer, activation)
                if layer
                else layers.transition.build(channels, width),
            )
        )

    @staticmethod
    def operations(
        channels: int, size: int, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield every dense layer's, then BatchNorm, activation, transition and resampling."""
        for _ in range(stage.layers):
            yield from DenseLayer.operations(channels, size, stage, layers)
            channels += _growth(stage)
        activation = layers.activation
        yield from norm_activation(channels, size, activation)
        width, layer = stage.width * layers.resampling.expansion, layers.resampling.layer
        if layer:
            kind = CONVOLUTIONS[stage.convolution]
            yield from kind.operations(channels, width, size, layer, activation)
        else:  # a transition that keeps the size is 1x1 whatever the stage's convolution
            yield layers.transition.operation(channels, width, size)
        yield from layers.resampling.operations(width, stage.width, size)


def _growth(stage: Stage) -> int:
    return stage.growth_rate or 0  # never None in a dense stage: `Stage` refuses it


BLOCKS: dict[str, StageBlock] = {
    "plain": PlainStage,
    "dense": DenseStage,
}
"""Make a stage from its input channels; its output has `stage.width` channels."""
