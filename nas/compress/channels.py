"""Which layer produces each channel that a layer of a network reads.

The forward pass is traced by torch.fx, with every module without children as one operation. Each
channel is followed from the layer that produces it through normalisations, activations, depthwise
convolutions, changes of size, concatenations and flattening to the layers that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import fx, nn

from nas.layers import ACTIVATIONS, Concat, Crop
from nas.vae import VAE, Reparameterise

Convolution = nn.Conv2d | nn.ConvTranspose2d
Producer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
"""Layers whose outputs are new channels, unless they are depthwise."""

IMAGES = "images"
"""The producer of the channels of the images."""

_ACTIVATIONS = tuple({type(make()) for make in ACTIVATIONS.values()})
_UNCHANGED = (
    nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.Flatten,
    nn.Sigmoid, Crop,
)  # fmt: skip
"""Layers that leave the number and the order of channels as they are."""


class Feature(NamedTuple):
    """One channel that a layer reads, or one value of a flattened channel.

    Attributes:
        producer: Name of the layer that produces it.
        output: Number of the producer's output; of several outputs that form one channel, the
            first one.
        place: Position within the channel, if channels are flattened; otherwise 0.
        linear: Whether no activation lies between the producer and the reader.
    """

    producer: str
    output: int
    place: int = 0
    linear: bool = True

    @property
    def key(self) -> tuple[str, int, int]:
        """Producer, output and place."""
        return self[:3]


@dataclass
class Channels:
    """The channels of a network.

    Attributes:
        reads: Layer -> the channels that it reads, for each layer with weights.
        outputs: Producer -> number of its outputs, in the order of the forward pass.
        spans: Producer -> number of successive outputs that form one channel, if not 1: pixel
            shuffle takes four, the linear seed of the decoder one for each position.
        tied: Producer -> another one of which the same outputs have to be kept: the log-variance
            belongs to the mean.
        depthwise: Names of the depthwise convolutions.
    """

    reads: dict[str, tuple[Feature, ...]] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    spans: dict[str, int] = field(default_factory=dict)
    tied: dict[str, str] = field(default_factory=dict)
    depthwise: set[str] = field(default_factory=set)

    def units(self, producer: str) -> int:
        """Return the number of channels that a producer's outputs form."""
        return self.outputs[producer] // self.spans.get(producer, 1)

    def unit(self, feature: Feature) -> int:
        """Return the number of the channel among those of its producer."""
        return feature.output // self.spans.get(feature.producer, 1)


def trace_channels(model: VAE, depthwise: Collection[str] = ()) -> Channels:
    """Follow the channels of a network through its forward pass.

    Args:
        model: The network; it may be on the meta device.
        depthwise: Names of depthwise convolutions of one channel, which cannot be recognised by
            their groups.

    Raises:
        TypeError: a layer is of a type that is not known here.
    """
    return _Trace(model, depthwise).run()


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


class _Trace:
    def __init__(self, model: VAE, depthwise: Collection[str]) -> None:
        self._model, self._depthwise = model, depthwise
        self._found = Channels()

    def run(self) -> Channels:
        graph = _Tracer().trace(self._model)
        values: dict[Any, tuple[Feature, ...]] = {}
        images = range(self._model.architecture.image_channels)
        for node in graph.nodes:
            if node.op == "placeholder":
                is_image = not values
                values[node] = tuple(Feature(IMAGES, c) for c in images) if is_image else ()
            elif node.op == "call_module":
                inputs = [values[argument] for argument in node.args]
                name = str(node.target)
                values[node] = self._after(name, self._model.get_submodule(name), inputs)
        return self._found

    def _after(
        self, name: str, module: nn.Module, inputs: Sequence[tuple[Feature, ...]]
    ) -> tuple[Feature, ...]:
        """Return the channels that a layer puts out."""
        features, found = inputs[0], self._found
        if isinstance(module, nn.Linear):
            places = range(module.in_features // len(features))
            features = tuple(f._replace(place=place) for f in features for place in places)
        if isinstance(module, Producer | nn.BatchNorm2d):
            found.reads[name] = features
        if isinstance(module, Convolution) and self._is_depthwise(name, module):
            found.depthwise.add(name)
        elif isinstance(module, Producer):
            return self._produced(name, module)
        elif isinstance(module, Reparameterise):
            found.tied[inputs[1][0].producer] = features[0].producer
        elif isinstance(module, Concat):
            return tuple(feature for part in inputs for feature in part)
        else:
            return self._passed(name, module, features)
        return features

    def _passed(
        self, name: str, module: nn.Module, features: tuple[Feature, ...]
    ) -> tuple[Feature, ...]:
        """Return the channels after a layer of one input and without convolution."""
        if isinstance(module, nn.PixelShuffle):
            return self._joined(features, module.upscale_factor**2)
        if isinstance(module, nn.Unflatten):
            return self._joined(features, len(features) // _channels_of(module))
        if isinstance(module, _ACTIVATIONS):
            return tuple(feature._replace(linear=False) for feature in features)
        if not isinstance(module, _UNCHANGED):
            raise TypeError(f"{name}: channels cannot be followed through {type(module).__name__}")
        return features

    def _is_depthwise(self, name: str, module: Convolution) -> bool:
        return module.groups > 1 or name in self._depthwise

    def _produced(self, name: str, module: Producer) -> tuple[Feature, ...]:
        count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        self._found.outputs[name] = count
        return tuple(Feature(name, number) for number in range(count))

    def _joined(self, features: tuple[Feature, ...], span: int) -> tuple[Feature, ...]:
        """Return one channel for each `span` successive outputs of a producer."""
        first = features[::span]
        self._found.spans.update({feature.producer: span for feature in first})
        return first


def _channels_of(module: nn.Unflatten) -> int:
    sizes: Mapping[int, Any] | Sequence[Any] = module.unflattened_size
    return int(sizes[0])
