"""Blocks of the user's own: modules that take the place of the layers of a stage.

A block is a class or function `(channels, stage, layers)` that returns a module from `channels` to
`stage.width` channels, which keeps height and width: `(batch, channels, height, width)` to
`(batch, stage.width, height, width)`. `stage` is the description of the stage
(`search_spaces.architecture.Stage`), `layers` its kinds of layers (`nas.layers.StageLayers`). The
stage's change of size follows the block.

Costs are counted on the meta device. The operations of the block are not listed, so that its
latency is measured, but never predicted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from nas.blocks import BLOCKS
from nas.findings import CandidateFailed
from nas.layers import POINTWISE, StageLayers, normalised
from nas.operation import OperationGroup
from nas.own.imports import PartFailed, imported, require_call, told
from profiling.complexity import complexity
from search_spaces.architecture import Stage
from search_spaces.sizes import Size, sides

ARGUMENTS = ("channels", "stage", "layers")

_TOO_EXPENSIVE = 2**50
"""Costs of a stage that cannot be built, so that no sampler prefers it."""


@cache
def find_block(name: str) -> Callable[..., Any]:
    """Return the class or function of a block by its import string.

    Raises:
        UserError: the import string names none of these arguments.
    """
    return require_call(name, imported(name), ARGUMENTS)


class OwnBlock(nn.Module):
    """The module of a block of the user's own, whose output is checked at each call.

    Args:
        channels: Number of input channels.
        stage: The stage, whose `block` is the import string.
        layers: The kinds of layers of the stage.

    Raises:
        PartFailed: the block raised an exception, or returned something else than it must.
        UserError: it cannot be imported.
    """

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        super().__init__()
        self.name, self.width = stage.block, stage.width
        block = find_block(self.name)
        try:
            module = block(channels, stage, layers)
        except Exception as error:  # code of the user
            raise PartFailed(f"{self.name} raised {told(error)}") from error
        if not isinstance(module, nn.Module):
            kind = type(module).__name__
            raise PartFailed(f"{self.name} returned a {kind}, not a torch.nn.Module")
        self.module = module

    def forward(self, features: Tensor) -> Tensor:
        """Return `(batch, stage.width, height, width)`."""
        try:
            found = self.module(features)
        except CandidateFailed:
            raise
        except Exception as error:  # code of the user
            raise PartFailed(f"{self.name} raised {told(error)}") from error
        if not isinstance(found, Tensor):
            raise PartFailed(f"{self.name} returned a {type(found).__name__}, not a tensor")
        wanted = self.width, *features.shape[2:]
        if found.shape[1:] != wanted:
            sizes = " x ".join(map(str, wanted))
            raise PartFailed(
                f"{self.name} returned a tensor of shape {tuple(found.shape)}, not of {sizes} for "
                "each image: `stage.width` channels, and the height and width of its input"
            )
        return found


class OwnStage(nn.Sequential):
    """A block of the user's own and the change of size of its stage.

    Where that change is a convolution, it is followed by BatchNorm and activation.
    """

    def __init__(self, channels: int, stage: Stage, layers: StageLayers) -> None:
        super().__init__(OrderedDict(block=OwnBlock(channels, stage, layers)))
        resampling = layers.resampling
        if resampling.layer or resampling.expansion > 1:
            width = stage.width * resampling.expansion
            convolution = (resampling.layer or POINTWISE).build(stage.width, width)
            self.add_module("transition", normalised(convolution, width, layers.activation))
        resampling.append_to(self)


def build_stage(channels: int, stage: Stage, layers: StageLayers) -> nn.Sequential:
    """Return the module of a stage, from `channels` to `stage.width` channels.

    Raises:
        PartFailed: a block of the user's own failed.
    """
    if stage.block in BLOCKS:
        return BLOCKS[stage.block](channels, stage, layers)
    return OwnStage(channels, stage, layers)


def stage_costs(channels: int, size: Size, stage: Stage, layers: StageLayers) -> OperationGroup:
    """Return the operations of a stage, from maps of `size`; of one's own block only the totals.

    A stage that cannot be built counts as very expensive: its evaluation says why it fails.
    """
    if stage.block in BLOCKS:
        return OperationGroup.of(BLOCKS[stage.block].operations(channels, size, stage, layers))
    try:
        with torch.device("meta"):
            module = OwnStage(channels, stage, layers).eval()
            example = torch.empty(1, channels, *sides(size))
            module(example)
            counts = complexity(module, example)
    except PartFailed:
        return OperationGroup((), _TOO_EXPENSIVE, _TOO_EXPENSIVE, 1)
    return OperationGroup((), counts.params, counts.macs, counts.launches)
