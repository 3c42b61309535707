"""Structured pruning: a trained model narrowed to fewer filters, layers and latent variables.

Pruning is a move within the family of architectures: the result is the network that `build_vae`
builds for the narrower architecture, with the weights of the strongest filters. The strength of a
filter is the norm of its weights (Li et al. 2017, "Pruning Filters for Efficient ConvNets") times
the factor by which the following BatchNorm multiplies its output, |gamma| / sqrt(variance + eps).
Without that factor the norm would mean nothing, because a BatchNorm removes the scale of what it
reads.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nas.checkpoint import with_weights
from nas.compress.channels import Channels, Feature, Producer, trace_channels
from nas.compress.narrowing import require_narrowing
from nas.vae import VAE, build_vae
from search_spaces.architecture import Architecture, Stage

Norm = Literal["l1", "l2"]
"""Norm of the weights of a filter: the sum of their sizes, or the root of the sum of squares."""

NORMS: tuple[Norm, ...] = get_args(Norm)

_LAYER = re.compile(r"(?P<stage>(?:encoder|decoder)\.stages\.\d+)\.block\.layers\.(?P<layer>\d+)")


def prune(model: VAE, narrow: Architecture, norm: Norm = "l1", source: str = "prune") -> VAE:
    """Return a trained model narrowed to another architecture, in evaluation mode.

    Each producer of channels keeps its strongest filters, in their order, and what reads them
    keeps the same ones: convolutions, depthwise convolutions, BatchNorms with their statistics,
    concatenations, pixel shuffles and flattened heads. Of the latent variables those with the
    strongest weights of the mean are kept. A dense block of fewer layers keeps those with the
    strongest filters, which is pruning all filters of the others. A plain block of fewer layers
    keeps its first ones and its last one, which may change the size; that one then reads other
    channels than it was trained with: the strongest take the places of the strongest.

    Args:
        model: The trained model; it is not changed.
        narrow: The architecture to prune it to.
        norm: Norm of the weights of a filter.
        source: What a message names as the origin of `narrow`.

    Raises:
        UserError: `narrow` is no narrowing of the model's architecture.
    """
    require_narrowing(model.architecture, narrow, source)
    return _Pruning(model, narrow, norm).model()


class _Pruning:
    """The pruning of one model.

    Names of layers are those of the narrow network, unless they are called wide. A layer of the
    narrow network gets the weights of its origin, a layer of the wide one.
    """

    def __init__(self, model: VAE, narrow: Architecture, norm: Norm) -> None:
        self._wide_model, self._narrow = model, narrow
        self._wide = trace_channels(model)
        self._strengths = strengths(model, self._wide, norm)
        self._layers = self._kept_layers()
        with torch.device("meta"):
            self._target = build_vae(narrow)
        names = (name for name, _ in self._target.named_modules())
        depthwise = {name for name in names if self._origin(name) in self._wide.depthwise}
        self._channels = trace_channels(self._target, depthwise)
        self._outputs = {name: self._kept_outputs(name) for name in self._channels.outputs}

    def model(self) -> VAE:
        weights: dict[str, Tensor] = {}
        for name in self._channels.reads:
            origin = self._wide_model.get_submodule(self._origin(name))
            inputs = self._kept_inputs(name)
            for key, tensor in origin.state_dict().items():
                cut = self._cut(name, origin, tensor.cpu(), inputs)
                weights[f"{name}.{key}"] = cut.clone(memory_format=torch.contiguous_format)
        return with_weights(self._narrow, weights)

    # -- Layers ---------------------------------------------------------------------------------

    def _kept_layers(self) -> dict[str, list[int]]:
        """Return the numbers of the wide layers that are kept, by the name of their stage."""
        kept = {}
        for part in ("encoder", "decoder"):
            wide, narrow = (
                getattr(one, part).stages for one in (self._wide_model.architecture, self._narrow)
            )
            for index, (before, after) in enumerate(zip(wide, narrow, strict=True)):
                stage = f"{part}.stages.{index}"
                kept[stage] = self._of_stage(stage, before, after)
        return kept

    def _of_stage(self, stage: str, before: Stage, after: Stage) -> list[int]:
        layers = list(range(before.layers))
        if before.block != "dense":
            return [*layers[: after.layers - 1], layers[-1]]
        sums = [0.0] * before.layers
        for producer, strength in self._strengths.items():
            found = _LAYER.match(producer)
            if found and found["stage"] == stage:
                sums[int(found["layer"])] += float(strength.sum())
        return sorted(_strongest(torch.tensor(sums), after.layers).tolist())

    def _origin(self, name: str) -> str:
        """Return the name of the wide layer from which a layer gets its weights."""

        def renamed(found: re.Match[str]) -> str:
            number = self._layers[found["stage"]][int(found["layer"])]
            return f"{found['stage']}.block.layers.{number}"

        return _LAYER.sub(renamed, name)

    # -- Channels -------------------------------------------------------------------------------

    def _kept_outputs(self, name: str) -> Tensor:
        """Return the numbers of the wide outputs that a producer keeps."""
        decides = self._origin(self._channels.tied.get(name, name))
        span = self._channels.spans.get(name, 1)
        units = _strongest(self._strengths[decides], self._channels.units(name))
        return (units[:, None] * span + torch.arange(span)).flatten()

    def _kept_inputs(self, name: str) -> Tensor:
        """Return the numbers of the wide inputs that a layer keeps."""
        features, wide = self._channels.reads[name], self._wide.reads[self._origin(name)]
        wanted = [self._in_wide(feature) for feature in features]
        places = {feature.key: number for number, feature in enumerate(wide)}
        if all(feature.key in places for feature in wanted):
            return torch.tensor([places[feature.key] for feature in wanted])
        return self._matched(wanted, wide)

    def _in_wide(self, feature: Feature) -> Feature:
        if feature.producer not in self._outputs:
            return feature  # of the images
        output = int(self._outputs[feature.producer][feature.output])
        return feature._replace(producer=self._origin(feature.producer), output=output)

    def _matched(self, wanted: Sequence[Feature], wide: Sequence[Feature]) -> Tensor:
        """Return the inputs of a layer whose predecessor was removed, by order of strength.

        If it reads more channels than it did, the strongest ones are taken again.
        """
        ours, theirs = (
            torch.tensor([self._strength(feature) for feature in one]).argsort(
                descending=True, stable=True
            )
            for one in (wanted, wide)
        )
        found = torch.empty(len(wanted), dtype=torch.long)
        found[ours] = theirs[torch.arange(len(wanted)) % len(theirs)]
        return found

    def _strength(self, feature: Feature) -> float:
        strength = self._strengths.get(feature.producer)
        return 0.0 if strength is None else float(strength[self._wide.unit(feature)])

    def _cut(self, name: str, origin: nn.Module, tensor: Tensor, inputs: Tensor) -> Tensor:
        """Return the part of a tensor of the wide layer that a layer gets."""
        if tensor.ndim == 0:  # the number of batches that a BatchNorm has seen
            return tensor
        if name not in self._outputs:  # a BatchNorm or depthwise convolution
            return tensor[inputs]
        if tensor.ndim == 1:  # a bias
            return tensor[self._outputs[name]]
        rows, columns = _axes(origin)
        return tensor.index_select(rows, self._outputs[name]).index_select(columns, inputs)


def strengths(model: VAE, channels: Channels, norm: Norm) -> dict[str, Tensor]:
    """Return the strength of each channel of each producer, by the producer's name.

    Several outputs that form one channel count as one filter. Where several BatchNorms read a
    channel, as in a dense block, the mean of their factors counts; where none does, the factor
    is 1.
    """
    factors = _factors(model, channels)
    found = {}
    for name in channels.outputs:
        module = model.get_submodule(name)
        assert isinstance(module, Producer)
        weight = module.weight.detach().cpu().float().transpose(0, _axes(module)[0])
        filters = weight.reshape(channels.units(name), -1)
        sizes = torch.linalg.vector_norm(filters, ord=int(norm[1:]), dim=1)
        found[name] = sizes * factors[name] if name in factors else sizes
    return found


def _factors(model: VAE, channels: Channels) -> dict[str, Tensor]:
    """Return the mean factor by which BatchNorms multiply each channel, by producer."""
    seen: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for name, features in channels.reads.items():
        module = model.get_submodule(name)
        if not isinstance(module, nn.BatchNorm2d):
            continue
        assert module.running_var is not None
        factor = (module.weight / (module.running_var + module.eps).sqrt()).detach().abs()
        for feature, value in zip(features, factor.tolist(), strict=True):
            if feature.linear and feature.producer in channels.outputs:
                seen[feature.producer][channels.unit(feature)].append(value)
    return {
        producer: torch.tensor([sum(units[u]) / len(units[u]) for u in sorted(units)])
        for producer, units in seen.items()
    }


def _axes(module: nn.Module) -> tuple[int, int]:
    """Return the axes of the outputs and of the inputs of a layer's weights."""
    return (1, 0) if isinstance(module, nn.ConvTranspose2d) else (0, 1)


def _strongest(strength: Tensor, count: int) -> Tensor:
    """Return the numbers of the strongest channels in ascending order; of equal ones the first."""
    return strength.argsort(descending=True, stable=True)[:count].sort().values
