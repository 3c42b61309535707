"""The operations of one forward pass, told from the architecture alone: no model, no torch.

`nas.blocks` and `nas.vae` build the network; here the same contract (docs/architecture.md) is
followed once more to say what each of its layers does. Tests hold the two together: kinds, shapes,
parameters, multiply-adds, bytes and launches agree with what `profiling.complexity` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, Stage

Kind = Literal[
    "convolution",
    "transposed",
    "depthwise",
    "depthwise_transposed",
    "pointwise",
    "pointwise_transposed",
    "linear",
    "batch_norm",
    "activation",
    "concatenation",
    "max_pool",
    "average_pool",
    "global_average",
    "upsample",
    "pixel_shuffle",
    "reparameterise",
]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""Every kind of operation; the first seven do all multiply-adds. Views launch nothing."""

_WEIGHTED = frozenset(KINDS[:7])
_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_REPARAMETERISE = 5, 7, 5  # launches, tensors read, tensors written: noise, half, exp, times, plus
_MEMORY = 1 << 15  # stages remembered; one takes about two kilobytes


class Operation(NamedTuple):
    """One layer's work on square maps of `channels_in` x `size_in`^2, which become those `_out`.

    Linear layers have size 1. A concatenation joins `channels_in` to as many new ones as make
    `channels_out`. `function` names an activation ("elu", "sigmoid"), "" for other kinds.
    """

    kind: Kind
    channels_in: int
    channels_out: int
    size_in: int
    size_out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    function: str = ""

    @property
    def weights(self) -> int:
        """Elements of the weight tensor, without the bias."""
        if self.kind not in _WEIGHTED:
            return 0
        return self.channels_in * self.channels_out // self.groups * self.kernel**2

    @property
    def params(self) -> int:
        """Trainable parameters."""
        if self.kind == "batch_norm":
            return 2 * self.channels_out
        return self.weights + self.channels_out if self.weights else 0

    @property
    def macs(self) -> int:
        """Multiply-adds for one image, as `profiling.complexity` counts them."""
        transposed = self.kind.endswith("transposed")
        return self.weights * (self.size_in if transposed else self.size_out) ** 2

    @property
    def launches(self) -> int:
        """Operations launched."""
        return _REPARAMETERISE[0] if self.kind == "reparameterise" else 1

    @property
    def elements_in(self) -> int:
        """Elements of the feature maps read for one image."""
        if self.kind == "concatenation":
            return self.elements_out
        tensors = _REPARAMETERISE[1] if self.kind == "reparameterise" else 1
        return tensors * self.channels_in * self.size_in**2

    @property
    def elements_out(self) -> int:
        """Elements of the feature maps written for one image."""
        tensors = _REPARAMETERISE[2] if self.kind == "reparameterise" else 1
        return tensors * self.channels_out * self.size_out**2

    def bytes_moved(self, batch: int = 1) -> int:
        """Bytes of operands and results, each once; max pooling also writes where maxima were."""
        # A BatchNorm has its running mean and variance too, and two more of the batch.
        constants = 3 * self.params if self.kind == "batch_norm" else self.params
        moved = (constants + batch * (self.elements_in + self.elements_out)) * _FLOAT_BYTES
        indices = batch * self.elements_out if self.kind == "max_pool" else 0
        return moved + indices * _INDEX_BYTES


@dataclass(frozen=True, eq=False)
class Part:
    """The operations of a stage (a stem, a head, ...), in order; equal stages share one object."""

    operations: tuple[Operation, ...]

    @cached_property
    def params(self) -> int:
        """Trainable parameters of all its operations."""
        return sum(operation.params for operation in self.operations)

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of all its operations for one image."""
        return sum(operation.macs for operation in self.operations)

    @cached_property
    def launches(self) -> int:
        """Operations launched."""
        return sum(operation.launches for operation in self.operations)


def operations(architecture: Architecture) -> tuple[Operation, ...]:
    """Return what one forward pass launches, in order."""
    return tuple(chain.from_iterable(part.operations for part in parts(architecture)))


def parts(architecture: Architecture) -> list[Part]:
    """Return the same, part by part: parts are remembered, so this takes microseconds."""
    return [*_encoder(architecture), *_decoder(architecture)]


def exact_costs(architectures: Iterable[Architecture]) -> dict[str, NDArray[np.int64]]:
    """Return `params` and `macs` of each, `(n,)`: what `nas.evaluate.static_costs` counts."""
    found = [parts(architecture) for architecture in architectures]
    return {
        "params": np.array([sum(part.params for part in each) for each in found], dtype=np.int64),
        "macs": np.array([sum(part.macs for part in each) for each in found], dtype=np.int64),
    }


def _encoder(architecture: Architecture) -> Iterator[Part]:
    described, function = architecture.encoder, architecture.activation
    channels, sizes = architecture.image_channels, architecture.encoder_sizes
    if described.stem_width:
        yield _stem(channels, described.stem_width, sizes[0], function)
        channels = described.stem_width
    for stage, size in zip(described.stages, sizes, strict=False):
        yield _encoder_stage(_fields(stage, stage.downsampling), channels, size, function)
        channels = stage.width
    width, latent = described.head_width or 0, architecture.latent_size
    yield _head(described.head, channels, sizes[-1], width, function, latent)


def _decoder(architecture: Architecture) -> Iterator[Part]:
    described, function = architecture.decoder, architecture.activation
    channels, sizes = described.seed_width, architecture.decoder_sizes
    yield _seed(architecture.latent_size, channels * sizes[0] ** 2, function)
    for stage, size in zip(described.stages, sizes, strict=False):
        fields = _fields(stage, stage.upsampling)
        yield _decoder_stage(fields, channels, size, function, described.operator)
        channels = stage.width
    yield _output(channels, architecture.image_channels, sizes[-1], described.operator)


class _Stage(NamedTuple):
    """What of a stage decides its operations: quicker to hash than the description itself."""

    block: str
    convolution: str
    width: int
    layers: int
    growth_rate: int
    resampling: str


def _fields(stage: Stage, resampling: str) -> _Stage:
    return _Stage(
        stage.block,
        stage.convolution,
        stage.width,
        stage.layers,
        stage.growth_rate or 0,
        resampling,
    )


_KIND_OF: dict[tuple[str, bool], Kind] = {
    ("convolution", False): "convolution",
    ("convolution", True): "transposed",
    ("depthwise", False): "depthwise",
    ("depthwise", True): "depthwise_transposed",
    ("pointwise", False): "pointwise",
    ("pointwise", True): "pointwise_transposed",
}


class _Layer(NamedTuple):
    """A kind of convolution that may change the size: halves with a stride, or doubles."""

    transposed: bool
    kernel: int
    stride: int = 1

    def size_after(self, size: int) -> int:
        return self.stride * size if self.transposed else -(-size // self.stride)

    def __call__(self, channels: int, width: int, size: int, groups: int = 1) -> Operation:
        sort = "depthwise" if groups > 1 else "pointwise" if self.kernel == 1 else "convolution"
        kind = _KIND_OF[sort, self.transposed]
        shape = channels, width, size, self.size_after(size)
        return Operation(kind, *shape, self.kernel, self.stride, groups)


@dataclass(frozen=True)
class _Kit:
    """What a stage's layers are made of; the counterpart of `nas.blocks.Kit`."""

    function: str
    operator: _Layer
    transition: _Layer
    resampling: _Layer | None = None
    expansion: int = 1
    after: Callable[[int, int], Operation] | None = None


_POINTWISE = _Layer(transposed=False, kernel=1)
_TRANSPOSED_POINTWISE = _Layer(transposed=True, kernel=1)
_OPERATORS = {
    "convolution": _Layer(transposed=False, kernel=3),
    "transposed": _Layer(transposed=True, kernel=3),
}


def _halved(kind: Kind) -> dict[str, Any]:
    return {"after": lambda channels, size: _resized(kind, channels, channels, size, -(-size // 2))}


def _resized(kind: Kind, channels: int, width: int, size: int, to: int) -> Operation:
    return Operation(kind, channels, width, size, to, kernel=2, stride=2)


_DOWNSAMPLING: dict[str, dict[str, Any]] = {
    "max": _halved("max_pool"),
    "average": _halved("average_pool"),
    "strided": {"resampling": _Layer(transposed=False, kernel=3, stride=2)},
}
_UPSAMPLING: dict[str, dict[str, Any]] = {
    "nearest": {"after": lambda c, size: _resized("upsample", c, c, size, 2 * size)},
    "transposed": {"resampling": _Layer(transposed=True, kernel=4, stride=2)},
    "pixel_shuffle": {
        "expansion": 4,
        "after": lambda c, size: _resized("pixel_shuffle", 4 * c, c, size, 2 * size),
    },
}


@lru_cache(_MEMORY)
def _encoder_stage(stage: _Stage, channels: int, size: int, function: str) -> Part:
    kit = _Kit(function, _OPERATORS["convolution"], _POINTWISE, **_DOWNSAMPLING[stage.resampling])
    return Part(tuple(_BLOCKS[stage.block](stage, channels, size, kit)))


@lru_cache(_MEMORY)
def _decoder_stage(stage: _Stage, channels: int, size: int, function: str, operator: str) -> Part:
    resampling = _UPSAMPLING[stage.resampling]
    kit = _Kit(function, _OPERATORS[operator], _TRANSPOSED_POINTWISE, **resampling)
    return Part(tuple(_BLOCKS[stage.block](stage, channels, size, kit)))


def _plain(stage: _Stage, channels: int, size: int, kit: _Kit) -> Iterator[Operation]:
    last = kit.resampling or kit.operator, stage.width * kit.expansion
    for layer, width in [(kit.operator, stage.width)] * (stage.layers - 1) + [last]:
        yield from _convolved(stage.convolution, channels, width, size, layer, kit.function)
        channels, size = width, layer.size_after(size)
        yield from _normalised(channels, size, kit.function)
    if kit.after:
        yield kit.after(stage.width, size)


def _dense(stage: _Stage, channels: int, size: int, kit: _Kit) -> Iterator[Operation]:
    growth = stage.growth_rate
    for _ in range(stage.layers):
        yield from _normalised(channels, size, kit.function)
        yield from _convolved(stage.convolution, channels, growth, size, kit.operator, kit.function)
        yield Operation("concatenation", channels, channels + growth, size, size)
        channels += growth
    yield from _normalised(channels, size, kit.function)
    width = stage.width * kit.expansion
    if kit.resampling:
        yield from _convolved(
            stage.convolution, channels, width, size, kit.resampling, kit.function
        )
    else:
        yield kit.transition(channels, width, size)
    if kit.after:
        yield kit.after(stage.width, size)


_BLOCKS = {"plain": _plain, "dense": _dense}


def _convolved(
    convolution: str, channels: int, width: int, size: int, layer: _Layer, function: str
) -> Iterator[Operation]:
    if convolution == "standard":
        yield layer(channels, width, size)
    elif convolution == "depthwise_first":
        yield layer(channels, channels, size, groups=channels)
        yield _POINTWISE(channels, width, layer.size_after(size))
    else:
        yield _POINTWISE(channels, width, size)
        yield from _normalised(width, size, function)
        yield layer(width, width, size, groups=width)


def _normalised(channels: int, size: int, function: str) -> Iterator[Operation]:
    yield Operation("batch_norm", channels, channels, size, size)
    yield Operation("activation", channels, channels, size, size, function=function)


@lru_cache(_MEMORY)
def _stem(channels: int, width: int, size: int, function: str) -> Part:
    convolution = _OPERATORS["convolution"](channels, width, size)
    return Part((convolution, *_normalised(width, size, function)))


@lru_cache(_MEMORY)
def _head(head: str, channels: int, size: int, width: int, function: str, latent: int) -> Part:
    """What leads to the latent: the head, two linear layers, and the sample."""
    before: tuple[Operation, ...] = ()
    if head == "squeeze":
        before = (_POINTWISE(channels, width, size), *_normalised(width, size, function))
        channels = width
    elif head == "global_average":
        before = (Operation("global_average", channels, channels, size, 1),)
        size = 1
    linear = Operation("linear", channels * size**2, latent, 1, 1)
    return Part((*before, linear, linear, Operation("reparameterise", latent, latent, 1, 1)))


@lru_cache(_MEMORY)
def _seed(latent: int, features: int, function: str) -> Part:
    activation = Operation("activation", features, features, 1, 1, function=function)
    return Part((Operation("linear", latent, features, 1, 1), activation))


@lru_cache(_MEMORY)
def _output(channels: int, colours: int, size: int, operator: str) -> Part:
    sigmoid = Operation("activation", colours, colours, size, size, function="sigmoid")
    return Part((_OPERATORS[operator](channels, colours, size), sigmoid))
