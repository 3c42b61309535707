"""Features of a network's structure for a surrogate, made from its list of operations.

They describe what the axes only imply: how much is computed and stored at each resolution, how wide
and how deep each resolution is, how many operations of each kind there are, how far a pixel of the
latent sees, and how narrow the network is at its narrowest. Counts of this sort predict the quality
of a network better than encodings of its choices (Kadlecova et al. 2024, *Surprisingly Strong
Performance Prediction with Neural Graph Features*). No operation has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.operation import OperationGroup
from nas.predict.operations import operation_groups
from profiling.kinds import OPERATION_KINDS, WEIGHTED_KINDS
from search_spaces.architecture import Architecture
from search_spaces.sizes import Size, area, sides

Array = NDArray[np.float64]

_LEVELS = 12
"""Resolutions that are distinguished: the image, its half ... down to one pixel, and vectors."""

_PER_LEVEL = 4
_KINDS = {kind: number for number, kind in enumerate(OPERATION_KINDS)}


def structure_features(architectures: Sequence[Architecture]) -> Array:
    """Return the features of architectures, (architectures, features).

    For the encoder and for the decoder there are, for each resolution, multiply-adds, parameters,
    the number of layers with weights and the largest number of channels; the number of operations
    of each kind; the elements that pass through BatchNorm and activations; the receptive field; and
    the smallest feature map. All are logarithms of 1 plus the value. Blocks of one's own list no
    operations and count only by their totals.
    """
    return np.array([_features(one) for one in architectures])


def _features(architecture: Architecture) -> Array:
    longest = max(sides(architecture.image_size))
    parts = [
        _of_part(tuple(operation_groups(architecture, part)), longest)
        for part in ("encoder", "decoder")
    ]
    return np.concatenate(parts)


@lru_cache(1 << 15)
def _of_part(groups: tuple[OperationGroup, ...], longest: int) -> Array:
    tables = [_of_group(group, longest) for group in groups]
    levels = np.sum([levels for levels, _ in tables], axis=0)
    levels[:, 3] = np.max([one[:, 3] for one, _ in tables], axis=0)
    counts = np.sum([counts for _, counts in tables], axis=0)
    field, step, narrowest = 1.0, 1.0, np.inf
    for group in groups:
        for one in group.operations:
            if one.kind == "linear":
                continue
            field += (one.kernel - 1) * step
            step *= max(sides(one.size_in)) / max(sides(one.size_out))
            narrowest = min(narrowest, one.channels_out * area(one.size_out))
    ends = [field, 0.0 if np.isinf(narrowest) else narrowest]
    return np.log1p(np.concatenate([levels.ravel(), counts, ends]))


@lru_cache(1 << 15)
def _of_group(group: OperationGroup, longest: int) -> tuple[Array, Array]:
    """Return (levels, 4): multiply-adds, parameters, layers, width; and counts by kind."""
    levels, counts = np.zeros((_LEVELS, _PER_LEVEL)), np.zeros(len(_KINDS) + 1)
    for one in group.operations:
        row = levels[_level(one.size_out, longest)]
        row[0] += one.macs
        row[1] += one.params
        if one.kind in WEIGHTED_KINDS:
            row[2] += 1
            row[3] = max(row[3], one.channels_out)
        counts[_KINDS[one.kind]] += 1
        if one.kind in ("batch_norm", "activation"):
            counts[-1] += one.elements_out
    if not group.operations:
        levels[0, :2] = group.macs, group.params
    return levels, counts


def _level(size: Size, longest: int) -> int:
    return min(round(np.log2(longest / max(sides(size)))), _LEVELS - 1)
