"""The operations of one forward pass, told from the architecture alone: no model, no torch.

`nas.blocks` and `nas.vae` build the network; here the same contract (docs/architecture.md) is
followed once more to say what each of its layers does. Tests hold the two together: kinds, shapes,
parameters, multiply-adds, bytes and launches agree with what `profiling.complexity` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.predict.operation import Kind, Operation
from search_spaces.architecture import Architecture, Stage

_MEMORY = 1 << 15  # parts remembered of each sort


@dataclass(frozen=True, eq=False)
class Part:
    """Operations that come together, as in a stage; equal ones are one object, made once.

    Attributes:
        params: Trainable parameters of all of them.
        macs: Multiply-adds of all of them for one image.
        launches: How many launches they take.
    """

    operations: tuple[Operation, ...]
    params: int
    macs: int
    launches: int

    @classmethod
    def of(cls, *operations: Operation) -> Part:
        """Add up single operations."""
        return cls(operations, *_totals(operations))

    @classmethod
    def joined(cls, parts: Sequence[Part]) -> Part:
        """Add up parts, far fewer than their operations."""
        return cls(tuple(chain.from_iterable(part.operations for part in parts)), *_totals(parts))


def _totals(summands: Sequence[Operation | Part]) -> tuple[int, int, int]:
    return (
        sum(one.params for one in summands),
        sum(one.macs for one in summands),
        sum(one.launches for one in summands),
    )


def operations(architecture: Architecture) -> tuple[Operation, ...]:
    """Return what one forward pass launches, in order."""
    return tuple(chain.from_iterable(part.operations for part in parts(architecture)))


def parts(architecture: Architecture) -> list[Part]:
    """Return the same in parts that are remembered: quick to add up for many architectures."""
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
    if width := described.stem_width:
        yield _convolved("standard", channels, width, sizes[0], _OPERATORS["convolution"], function)
        yield _normalised(width, sizes[0], function)
        channels = width
    for stage, size in zip(described.stages, sizes, strict=False):
        kit = _Kit(function, _OPERATORS["convolution"], _POINTWISE, stage.downsampling)
        yield _stage(stage, channels, size, kit)
        channels = stage.width
    yield from _head(architecture, channels, sizes[-1])


def _decoder(architecture: Architecture) -> Iterator[Part]:
    described, function = architecture.decoder, architecture.activation
    channels, sizes = described.seed_width, architecture.decoder_sizes
    operator = _OPERATORS[described.operator]
    yield _seed(architecture.latent_size, channels * sizes[0] ** 2, function)
    for stage, size in zip(described.stages, sizes, strict=False):
        kit = _Kit(function, operator, _TRANSPOSED_POINTWISE, stage.upsampling)
        yield _stage(stage, channels, size, kit)
        channels = stage.width
    yield _convolved("standard", channels, architecture.image_channels, sizes[-1], operator, "")
    yield _sigmoid(architecture.image_channels, sizes[-1])


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


class _Resampling(NamedTuple):
    """The counterpart of `nas.blocks.Resampling`."""

    layer: _Layer | None = None
    expansion: int = 1
    after: Kind | None = None


class _Kit(NamedTuple):
    """The counterpart of `nas.blocks.Kit`."""

    function: str
    operator: _Layer
    transition: _Layer
    resampling: str


_POINTWISE = _Layer(transposed=False, kernel=1)
_TRANSPOSED_POINTWISE = _Layer(transposed=True, kernel=1)
_OPERATORS = {
    "convolution": _Layer(transposed=False, kernel=3),
    "transposed": _Layer(transposed=True, kernel=3),
}
_RESAMPLINGS = {
    "max": _Resampling(after="max_pool"),
    "average": _Resampling(after="average_pool"),
    "strided": _Resampling(_Layer(transposed=False, kernel=3, stride=2)),
    "nearest": _Resampling(after="upsample"),
    "transposed": _Resampling(_Layer(transposed=True, kernel=4, stride=2)),
    "pixel_shuffle": _Resampling(expansion=4, after="pixel_shuffle"),
}


@lru_cache(_MEMORY)
def _stage(stage: Stage, channels: int, size: int, kit: _Kit) -> Part:
    return Part.joined([*_BLOCKS[stage.block](stage, channels, size, kit)])


def _plain(stage: Stage, channels: int, size: int, kit: _Kit) -> Iterator[Part]:
    kept, change, function = (kit.operator, stage.width), _RESAMPLINGS[kit.resampling], kit.function
    last = change.layer or kit.operator, stage.width * change.expansion
    for layer, width in [kept] * (stage.layers - 1) + [last]:
        yield _convolved(stage.convolution, channels, width, size, layer, function)
        channels, size = width, layer.size_after(size)
        yield _normalised(channels, size, function)
    if change.after:
        yield _resized(change.after, channels, stage.width, size)


def _dense(stage: Stage, channels: int, size: int, kit: _Kit) -> Iterator[Part]:
    growth, change, function = stage.growth_rate or 0, _RESAMPLINGS[kit.resampling], kit.function
    for _ in range(stage.layers):
        yield _normalised(channels, size, function)
        yield _convolved(stage.convolution, channels, growth, size, kit.operator, function)
        yield _concatenated(channels, growth, size)
        channels += growth
    yield _normalised(channels, size, function)
    width = stage.width * change.expansion
    layer, convolution = change.layer or kit.transition, stage.convolution
    # Without a size of its own to change, the transition is 1x1 whatever the stage's kind.
    yield _convolved(
        convolution if change.layer else "standard", channels, width, size, layer, function
    )
    if change.after:
        yield _resized(change.after, width, stage.width, size)


_BLOCKS: dict[str, Callable[[Stage, int, int, _Kit], Iterator[Part]]] = {
    "plain": _plain,
    "dense": _dense,
}


def _head(architecture: Architecture, channels: int, size: int) -> Iterator[Part]:
    """Yield what leads to the latent: the head, two linear layers, the sample."""
    head, function = architecture.encoder.head, architecture.activation
    if head == "squeeze":
        width = architecture.encoder.head_width or 0  # never None here: `Encoder` refuses it
        yield _convolved("standard", channels, width, size, _POINTWISE, function)
        yield _normalised(width, size, function)
        channels = width
    elif head == "global_average":
        yield _averaged(channels, size)
        size = 1
    yield _latent(channels * size**2, architecture.latent_size)


@lru_cache(_MEMORY)
def _convolved(
    convolution: str, channels: int, width: int, size: int, layer: _Layer, function: str
) -> Part:
    if convolution == "standard":
        return Part.of(layer(channels, width, size))
    if convolution == "depthwise_first":
        spatial = layer(channels, channels, size, groups=channels)
        return Part.of(spatial, _POINTWISE(channels, width, spatial.size_out))
    between = _normalised(width, size, function).operations
    spatial = layer(width, width, size, groups=width)
    return Part.of(_POINTWISE(channels, width, size), *between, spatial)


@lru_cache(_MEMORY)
def _normalised(channels: int, size: int, function: str) -> Part:
    shape = channels, channels, size, size
    return Part.of(
        Operation("batch_norm", *shape), Operation("activation", *shape, function=function)
    )


@lru_cache(_MEMORY)
def _concatenated(channels: int, growth: int, size: int) -> Part:
    return Part.of(Operation("concatenation", channels, channels + growth, size, size))


@lru_cache(_MEMORY)
def _resized(kind: Kind, channels: int, width: int, size: int) -> Part:
    after = -(-size // 2) if kind.endswith("_pool") else 2 * size
    return Part.of(Operation(kind, channels, width, size, after, kernel=2, stride=2))


@lru_cache(_MEMORY)
def _averaged(channels: int, size: int) -> Part:
    return Part.of(Operation("global_average", channels, channels, size, 1))


@lru_cache(_MEMORY)
def _latent(features: int, latent: int) -> Part:
    linear = Operation("linear", features, latent, 1, 1)
    return Part.of(linear, linear, Operation("reparameterise", latent, latent, 1, 1))


@lru_cache(_MEMORY)
def _seed(latent: int, features: int, function: str) -> Part:
    activation = Operation("activation", features, features, 1, 1, function=function)
    return Part.of(Operation("linear", latent, features, 1, 1), activation)


@lru_cache(_MEMORY)
def _sigmoid(channels: int, size: int) -> Part:
    return Part.of(Operation("activation", channels, channels, size, size, function="sigmoid"))
