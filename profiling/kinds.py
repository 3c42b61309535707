"""The kinds of operations, for all code that counts, times, predicts or names operations.

There is one list of kinds and one coarser list of groups. The operations that torch runs
(`profiling.operations`) have a group; the operations of a known network (`nas.operation`) have a
kind. This module needs no torch.
"""

from __future__ import annotations

from typing import Literal, get_args

OperationKind = Literal[
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

OPERATION_KINDS: tuple[OperationKind, ...] = get_args(OperationKind)
"""All kinds of operations. Views (reshape, crop) launch nothing and have no kind."""

WEIGHTED_KINDS: frozenset[OperationKind] = frozenset(OPERATION_KINDS[:7])
"""The kinds that have weights and do all multiply-adds: convolutions and linear layers."""

KindGroup = Literal[
    "convolution",
    "depthwise",
    "pointwise",
    "linear",
    "batch_norm",
    "activation",
    "concatenation",
    "resampling",
    "other",
]

KIND_GROUPS: tuple[KindGroup, ...] = get_args(KindGroup)
"""All groups of tables, figures and ablations; the stored `kind` of a layer is a group."""

CONVOLUTION_GROUPS: tuple[KindGroup, ...] = ("convolution", "depthwise", "pointwise")
"""The groups of convolutions."""

GROUP_OF: dict[OperationKind, KindGroup] = {
    "convolution": "convolution",
    "transposed": "convolution",
    "depthwise": "depthwise",
    "depthwise_transposed": "depthwise",
    "pointwise": "pointwise",
    "pointwise_transposed": "pointwise",
    "linear": "linear",
    "batch_norm": "batch_norm",
    "activation": "activation",
    "concatenation": "concatenation",
    "max_pool": "resampling",
    "average_pool": "resampling",
    "global_average": "resampling",
    "upsample": "resampling",
    "pixel_shuffle": "resampling",
    "reparameterise": "other",
}
"""Kind -> group. torch runs transposed convolutions by the same operator as others."""
