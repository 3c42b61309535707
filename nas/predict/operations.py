"""The operations of one forward pass and their exact costs, from the architecture alone.

This module lists the operations of the network that `nas.vae` builds, without building it. The
operations of blocks, convolutions and heads are listed by their classes in `nas.blocks`,
`nas.layers` and `nas.heads`. Tests check that kinds, shapes, parameters, multiply-adds, bytes and
launches equal those that `profiling.complexity` counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.heads import HEADS
from nas.layers import (
    DOWNSAMPLING,
    OPERATORS,
    POINTWISE,
    UPSAMPLING,
    ConvLayer,
    StageLayers,
    norm_activation,
)
from nas.operation import Operation, OperationGroup
from nas.own.blocks import stage_costs
from nas.vae import DECODER_TRANSITION
from search_spaces.architecture import Architecture, Decoder, Encoder, Stage
from search_spaces.errors import UserError
from search_spaces.sizes import Size, area
from search_spaces.space import SearchSpace

Part = Literal["full", "encoder", "decoder"]

_MEMORY = 1 << 15  # groups cached by each function: many architectures share stages
_PARTS = 1 << 11  # encoders and decoders cached: they are large, and recur within a proposal


def operations(architecture: Architecture, part: Part = "full") -> tuple[Operation, ...]:
    """Return the operations of one pass of a model or of a part of it, in order.

    Raises:
        UserError: the model has blocks of the user's own, whose operations are not known.
    """
    require_listed(architecture)
    groups = operation_groups(architecture, part)
    return tuple(chain.from_iterable(group.operations for group in groups))


def operation_groups(architecture: Architecture, part: Part = "full") -> list[OperationGroup]:
    """Return the same operations in cached groups, whose totals are fast to add up.

    Of a block of the user's own the totals are known, but not the operations.
    """
    one = architecture
    found: list[OperationGroup] = []
    common = one.image_channels, one.latent_size, one.activation
    if part != "decoder":
        found += _encoder(one.encoder, one.encoder_sizes, *common, sampled=part == "full")
    if part != "encoder":
        found += _decoder(one.decoder, one.decoder_sizes, *common)
    return found


def require_listed(model: Architecture | SearchSpace) -> None:
    """Refuse blocks of the user's own, whose operations are not known.

    Raises:
        UserError: the architecture, or a member of the space, has such a block.
    """
    if model.own_blocks:
        raise UserError(
            f"{', '.join(model.own_blocks)}: the latency of blocks of your own is not predicted; "
            "measure it (latency_ms)"
        )


def exact_costs(architectures: Iterable[Architecture]) -> dict[str, NDArray[np.int64]]:
    """Return `params` and `macs` of each, `(n,)`, as `nas.evaluate.static_costs` counts them."""
    found = [operation_groups(architecture) for architecture in architectures]
    return {
        "params": np.array([sum(group.params for group in each) for each in found], dtype=np.int64),
        "macs": np.array([sum(group.macs for group in each) for each in found], dtype=np.int64),
    }


@lru_cache(_PARTS)
def _encoder(
    encoder: Encoder,
    sizes: tuple[Size, ...],
    channels: int,
    latent: int,
    function: str,
    sampled: bool,
) -> tuple[OperationGroup, ...]:
    operator, found = OPERATORS["convolution"], []
    if width := encoder.stem_width:
        found.append(_stem(channels, width, sizes[0], operator, function))
        channels = width
    for stage, size in zip(encoder.stages, sizes, strict=False):
        layers = StageLayers(function, operator, POINTWISE, DOWNSAMPLING[stage.downsampling])
        found.append(_stage(channels, size, stage, layers))
        channels = stage.width
    shape = channels, sizes[-1], encoder.head_width
    found.append(_head(encoder.head, *shape, function))
    found.append(_latent(HEADS[encoder.head].features(*shape), latent, sampled))
    return tuple(found)


@lru_cache(_PARTS)
def _decoder(
    decoder: Decoder, sizes: tuple[Size, ...], image_channels: int, latent: int, function: str
) -> tuple[OperationGroup, ...]:
    channels, operator = decoder.seed_width, OPERATORS[decoder.operator]
    found = [_seed(latent, channels * area(sizes[0]), function)]
    for stage, size in zip(decoder.stages, sizes, strict=False):
        resampling = UPSAMPLING[stage.upsampling]
        layers = StageLayers(function, operator, DECODER_TRANSITION, resampling)
        found.append(_stage(channels, size, stage, layers))
        channels = stage.width
    found.append(_output(channels, image_channels, sizes[-1], operator))
    return tuple(found)


@lru_cache(_MEMORY)
def _stem(
    channels: int, width: int, size: Size, operator: ConvLayer, function: str
) -> OperationGroup:
    convolution = operator.operation(channels, width, size)
    return OperationGroup.of([convolution, *norm_activation(width, size, function)])


@lru_cache(_MEMORY)
def _stage(channels: int, size: Size, stage: Stage, layers: StageLayers) -> OperationGroup:
    return stage_costs(channels, size, stage, layers)


@lru_cache(_MEMORY)
def _head(
    head: str, channels: int, size: Size, head_width: int | None, function: str
) -> OperationGroup:
    return OperationGroup.of(HEADS[head].operations(channels, size, head_width, function))


@lru_cache(_MEMORY)
def _latent(features: int, latent: int, sampled: bool) -> OperationGroup:
    linear = Operation("linear", features, latent, 1, 1)  # mean and log-variance, then the sample
    sample = [Operation("reparameterise", latent, latent, 1, 1)] if sampled else []
    return OperationGroup.of([linear, linear, *sample])


@lru_cache(_MEMORY)
def _seed(latent: int, features: int, function: str) -> OperationGroup:
    activation = Operation("activation", features, features, 1, 1, function=function)
    return OperationGroup.of([Operation("linear", latent, features, 1, 1), activation])


@lru_cache(_MEMORY)
def _output(channels: int, image_channels: int, size: Size, operator: ConvLayer) -> OperationGroup:
    shape = image_channels, image_channels, size, size
    sigmoid = Operation("activation", *shape, function="sigmoid")
    return OperationGroup.of([operator.operation(channels, image_channels, size), sigmoid])
