"""Operations derived from an architecture agree with those of the built network."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from nas.evaluate import static_costs
from nas.layers import Concat, Crop
from nas.operation import Operation
from nas.predict.calibration import drawn
from nas.predict.operations import exact_costs, operations
from nas.vae import Reparameterise, build_vae
from profiling.complexity import ModuleCost, complexity
from profiling.kinds import GROUP_OF, OPERATION_KINDS
from search_spaces.architecture import CHOICES, Architecture
from search_spaces.references import REFERENCES
from search_spaces.sizes import sides
from search_spaces.space import SearchSpace
from tests.helpers.small_networks import ENTRIES, described


def counted(architecture: Architecture, batch: int = 1) -> list[ModuleCost]:
    with torch.device("meta"):
        model = build_vae(architecture)
        image = torch.empty(batch, *architecture.image_shape)
    return [row for row in complexity(model, image).rows if row.launches]


def told(operation: Operation, batch: int) -> tuple[object, ...]:
    """What the counter says of a row, from the operation."""
    flat = operation.size_in == operation.size_out == 1 and operation.kind in FLAT
    shape = (batch, operation.channels_out, *([] if flat else sides(operation.size_out)))
    return (
        GROUP_OF[operation.kind],
        shape,
        operation.params,
        operation.macs * batch,
        operation.bytes_moved(batch),
        operation.launches,
    )


FLAT = ("linear", "reparameterise")


def seen(row: ModuleCost) -> tuple[object, ...]:
    return (row.kind, row.output_shape, row.params, row.macs, row.bytes_moved, row.launches)


def agree(architecture: Architecture, batch: int = 1) -> None:
    rows = counted(architecture, batch)
    found = operations(architecture)
    assert len(found) == len(rows)
    for operation, row in zip(found, rows, strict=True):
        expected = told(operation, batch)
        if operation.kind == "activation" and len(row.output_shape) == 2:  # the seed's
            expected = (expected[0], row.output_shape, *expected[2:])
            assert row.output_shape[1] == operation.channels_out
        assert expected == seen(row), f"{row.path}: {operation}"


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.slow
def test_references_agree_with_the_counter(name: str) -> None:
    agree(REFERENCES[name])
    agree(REFERENCES[name].resized(30), batch=3)
    agree(REFERENCES[name].resized((48, 30)), batch=2)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "count"), [("wide", 12), ("paper", 8), ("quickstart", 5)])
def test_drawn_architectures_agree_with_the_counter(space: str, count: int) -> None:
    for architecture in islice(drawn(SearchSpace.load(space), seed=1), count):
        agree(architecture)


@pytest.mark.parametrize("block", CHOICES["block"])
@pytest.mark.parametrize(("field", "value"), ENTRIES)
def test_every_choice_agrees_with_the_counter(field: str, value: str, block: str) -> None:
    agree(described(12, **{"block": block, field: value}))
    agree(described((9, 14), **{"block": block, field: value}))


@pytest.mark.parametrize("space", ["quickstart@24x40", "paper@32x37"])
@pytest.mark.slow
def test_members_that_are_not_square_agree_with_the_counter(space: str) -> None:
    found, rng = SearchSpace.load(space), np.random.default_rng(0)
    for _ in range(4):
        architecture = found.architecture(found.sample(rng))
        agree(architecture)
        costs, counted_costs = exact_costs([architecture]), static_costs(architecture)
        assert costs["params"][0] == counted_costs["params"]
        assert costs["macs"][0] == counted_costs["macs"]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "count"), [("wide", 120), ("paper", 60), ("quickstart", 40)])
def test_many_agree_with_the_layers_built(space: str, count: int) -> None:
    """As the counter would say, but without running anything: weights, strides, parameters."""
    for architecture in islice(drawn(SearchSpace.load(space)), count):
        with torch.device("meta"):
            model = build_vae(architecture)
        layers = [layer for layer in model.modules() if not any(layer.children())]
        built = [description(layer) for layer in layers if not isinstance(layer, VIEWS)]
        assert [summary(operation) for operation in operations(architecture)] == built


VIEWS = (nn.Flatten, nn.Unflatten, Crop)
CLASSES = {
    "convolution": nn.Conv2d,
    "depthwise": nn.Conv2d,
    "pointwise": nn.Conv2d,
    "transposed": nn.ConvTranspose2d,
    "depthwise_transposed": nn.ConvTranspose2d,
    "pointwise_transposed": nn.ConvTranspose2d,
    "linear": nn.Linear,
    "batch_norm": nn.BatchNorm2d,
    "concatenation": Concat,
    "max_pool": nn.MaxPool2d,
    "average_pool": nn.AvgPool2d,
    "global_average": nn.AdaptiveAvgPool2d,
    "upsample": nn.Upsample,
    "pixel_shuffle": nn.PixelShuffle,
    "reparameterise": Reparameterise,
}
ACTIVATIONS = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


def description(layer: nn.Module) -> tuple[object, ...]:
    params = sum(parameter.numel() for parameter in layer.parameters())
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        shape = (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])
        return (type(layer), params, *shape, layer.groups)
    return (type(layer), params)


def summary(operation: Operation) -> tuple[object, ...]:
    layer = CLASSES.get(operation.kind) or ACTIVATIONS[operation.function]
    if layer in (nn.Conv2d, nn.ConvTranspose2d):
        shape = operation.channels_in, operation.channels_out, operation.kernel, operation.stride
        return (layer, operation.params, *shape, operation.groups)
    return (layer, operation.params)


def test_kinds_are_all_met() -> None:
    found = islice(drawn(SearchSpace.load("wide")), 40)
    assert {o.kind for architecture in found for o in operations(architecture)} == set(
        OPERATION_KINDS
    )


@pytest.mark.slow
def test_exact_costs_are_the_static_ones() -> None:
    some = [*REFERENCES.values(), *islice(drawn(SearchSpace.load("wide"), seed=2), 2)]
    costs = exact_costs(some)
    for i, architecture in enumerate(some):
        counted_costs = static_costs(architecture)
        assert {name: costs[name][i] for name in costs} == {
            name: counted_costs[name] for name in ("params", "macs")
        }
    assert exact_costs([])["params"].shape == (0,)


def test_a_width_of_one_is_no_depthwise_convolution() -> None:
    """With one channel there is one group: an ordinary convolution."""
    stage = {"convolution": "depthwise_first", "width": 1, "layers": 2}
    description = {
        "image_size": 8,
        "image_channels": 1,
        "encoder": {"stages": [stage]},
        "decoder": {"seed_width": 1, "stages": [stage], "operator": "transposed"},
    }
    agree(Architecture.from_dict(description))
