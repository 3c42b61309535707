"""The blocks of a stage: one class per block, which also lists the operations it launches.

A new block is one class and one line in `BLOCKS`, after its name in `search_spaces.architecture`.
All computation is in modules, one instance per call, so that hooks and traces can attribute every
operation. `operations` lists what a stage launches from the architecture alone, without building
the stage; tests compare both. Tensors are `(batch, channels, height, width)`; `size` is that of a
feature map.
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
from search_spaces.sizes import Size


class StageBlock(Protocol):
    """A class that builds a stage and lists the operations of an instance."""

    def __call__(self, channels: int, stage: Stage, layers: StageLayers) -> nn.Sequential:
        """Return the module, from `channels` to `stage.width` channels."""

    def operations(
        self, channels: int, size: Size, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield the operations that the module launches on maps of `size`, in order."""


class LayerSequence(nn.Module):
    """A sequence of layers at one resolution."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layers in order."""
        return self.layers(features)  # type: ignore[no-any-return]


class PlainStage(nn.Sequential):
    """`layers` times convolution, BatchNorm and activation, then the resampling."""

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
        channels: int, size: Size, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield convolution, BatchNorm and activation of each layer, then the resampling."""
        kind, activation = CONVOLUTIONS[stage.convolution], layers.activation
        for layer, width in layers.convolutions(stage):
            yield from kind.operations(channels, width, size, layer, activation)
            channels, size = width, layer.size_after(size)
            yield from norm_activation(channels, size, activation)
        yield from layers.resampling.operations(channels, stage.width, size)


class DenseLayer(nn.Module):
    """BatchNorm, activation, convolution to `growth_rate` channels, concatenation with input."""

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        super().__init__()
        growth, make = _growth(stage), CONVOLUTIONS[stage.convolution]
        self.norm = nn.BatchNorm2d(channels)
        self.activation = ACTIVATIONS[layers.activation]()
        self.convolution = make(channels, growth, layers.operator, layers.activation)
        self.concat = Concat()

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, channels + growth_rate, height, width)`; the input comes first."""
        new = self.convolution(self.activation(self.norm(features)))
        return self.concat(features, new)  # type: ignore[no-any-return]

    @staticmethod
    def operations(
        channels: int, size: Size, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield BatchNorm, activation, convolution and concatenation."""
        growth, kind = _growth(stage), CONVOLUTIONS[stage.convolution]
        yield from norm_activation(channels, size, layers.activation)
        yield from kind.operations(channels, growth, size, layers.operator, layers.activation)
        yield Operation("concatenation", channels, channels + growth, size, size)


class DenseStage(nn.Sequential):
    """A DenseNet block (Huang et al. 2017) with its transition.

    The input of each layer is the input of the block and the outputs of all earlier layers. The
    transition is BatchNorm, activation, a 1x1 layer to `width` channels, then the resampling.
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
        channels: int, size: Size, stage: Stage, layers: StageLayers
    ) -> Iterator[Operation]:
        """Yield those of each dense layer, then BatchNorm, activation, 1x1 layer and resampling."""
        for _ in range(stage.layers):
            yield from DenseLayer.operations(channels, size, stage, layers)
            channels += _growth(stage)
        activation = layers.activation
        yield from norm_activation(channels, size, activation)
        width, layer = stage.width * layers.resampling.expansion, layers.resampling.layer
        if layer:
            kind = CONVOLUTIONS[stage.convolution]
            yield from kind.operations(channels, width, size, layer, activation)
        else:  # a transition without resampling is 1x1 for every kind of convolution
            yield layers.transition.operation(channels, width, size)
        yield from layers.resampling.operations(width, stage.width, size)


def _growth(stage: Stage) -> int:
    return stage.growth_rate or 0  # never None in a dense stage: `Stage` refuses it


BLOCKS: dict[str, StageBlock] = {
    "plain": PlainStage,
    "dense": DenseStage,
}
"""Name -> class that builds the stage."""
