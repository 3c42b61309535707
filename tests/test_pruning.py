"""Pruning: exact where the pruned filters are zero, the identity where nothing is pruned."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.compress.channels import IMAGES, Channels, Feature, trace_channels
from nas.compress.narrowing import narrowed, require_narrowing
from nas.compress.pruning import NORMS, Norm, prune, strengths
from nas.vae import VAE, build_vae
from profiling.batch_norms import randomise_batch_norms
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES
from search_spaces.sizes import sides
from search_spaces.space import SearchSpace
from tests.helpers.small_networks import ENTRIES, described

WIDE = SearchSpace.load("wide@64")
proof = settings(max_examples=12, deadline=None)


def member(seed: int) -> Architecture:
    """Return a random member of `wide` with an eighth of its widths."""
    return narrowed(WIDE.architecture(WIDE.sample(np.random.default_rng(seed))), 1 / 8)


def trained(architecture: Architecture, seed: int = 0) -> VAE:
    """Return a network whose BatchNorms have other than their initial values."""
    model = build_vae(architecture, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        randomise_batch_norms(model, images(architecture))
    return model.eval()


def images(architecture: Architecture, count: int = 2) -> Tensor:
    height, width = sides(architecture.image_size)
    draw = torch.Generator().manual_seed(1)
    return torch.rand(count, architecture.image_channels, height, width, generator=draw)


def reconstructed(model: VAE) -> Tensor:
    with torch.inference_mode():
        return copy.deepcopy(model).double().reconstruct(images(model.architecture).double())


def changed(architecture: Architecture, **fields: Any) -> Architecture:
    """Return the architecture with other values at dotted paths, written with `__`."""
    described = architecture.to_dict()
    for path, value in fields.items():
        place: Any = described
        *parents, last = (int(part) if part.isdecimal() else part for part in path.split("__"))
        for part in parents:
            place = place[part]
        place[last] = value
    return Architecture.from_dict(described)


# Exactness


@pytest.mark.parametrize("norm", NORMS)
@proof
@given(seed=st.integers(0, 10**6))
@pytest.mark.slow
def test_pruning_to_the_same_architecture_is_the_identity(norm: Norm, seed: int) -> None:
    model = trained(member(seed))
    same = prune(model, model.architecture, norm).state_dict()
    expected = model.state_dict()
    assert same.keys() == expected.keys()
    assert all(torch.equal(same[name], expected[name]) for name in expected)


@pytest.mark.parametrize("norm", NORMS)
@proof
@given(seed=st.integers(0, 10**6))
@pytest.mark.slow
def test_pruned_zeros_leave_the_output_unchanged(norm: Norm, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = trained(member(seed))
    narrow = _narrower(model.architecture, rng)
    _zero(model, narrow, rng)
    pruned = prune(model, narrow, norm)
    assert pruned.architecture == narrow
    assert not pruned.training
    torch.testing.assert_close(reconstructed(pruned), reconstructed(model), rtol=0, atol=1e-9)


def _narrower(architecture: Architecture, rng: np.random.Generator) -> Architecture:
    """Return half the widths and latent variables, and fewer layers in some dense blocks."""
    half = narrowed(architecture, 0.5).to_dict()
    half["latent_size"] = -(-architecture.latent_size // 2)
    for stage in half["encoder"]["stages"] + half["decoder"]["stages"]:
        if stage["block"] == "dense":
            stage["layers"] = int(rng.integers(1, stage["layers"] + 1))
    return Architecture.from_dict(half)


def _zero(model: VAE, narrow: Architecture, rng: np.random.Generator) -> None:
    """Set as many filters to zero as a narrower architecture lacks, with what follows them."""
    channels, wanted = trace_channels(model), trace_channels(build_vae(narrow))
    dropped = _dropped_layers(model.architecture, narrow, rng)
    zeros: dict[str, set[int]] = {}
    for name in channels.outputs:
        if name in channels.tied:
            continue
        units = channels.units(name)
        layer = name.partition(".convolution.")[0]
        if layer in dropped:
            zeros[name] = set(range(units))
            continue
        kept = wanted.units(_after_dropping(name, dropped))
        zeros[name] = {int(one) for one in rng.permutation(units)[kept:]}
    _apply(model, channels, zeros)


def _dropped_layers(
    before: Architecture, after: Architecture, rng: np.random.Generator
) -> set[str]:
    found = set()
    for part in ("encoder", "decoder"):
        pairs = zip(getattr(before, part).stages, getattr(after, part).stages, strict=True)
        for index, (wide, narrow) in enumerate(pairs):
            for layer in rng.permutation(wide.layers)[narrow.layers :]:
                found.add(f"{part}.stages.{index}.block.layers.{layer}")
    return found


def _after_dropping(name: str, dropped: set[str]) -> str:
    stage, inside, rest = name.partition(".block.layers.")
    if not inside:
        return name
    layer, _, rest = rest.partition(".")
    below = sum(f"{stage}{inside}{one}" in dropped for one in range(int(layer)))
    return f"{stage}{inside}{int(layer) - below}.{rest}"


def _apply(model: VAE, channels: Channels, zeros: dict[str, set[int]]) -> None:
    with torch.no_grad():
        for name, units in zeros.items():
            module, span = model.get_submodule(name), channels.spans.get(name, 1)
            rows = [unit * span + place for unit in units for place in range(span)]
            weight: Any = module.weight
            (weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight)[rows] = 0
            module.bias[rows] = 0  # type: ignore[operator]
        for name, features in channels.reads.items():
            module = model.get_submodule(name)
            gone = [i for i, f in enumerate(features) if _is_zero(f, channels, zeros)]
            if isinstance(module, nn.BatchNorm2d):
                module.weight[gone] = 0
                module.bias[gone] = 0
            elif name in channels.depthwise:
                module.bias[gone] = 0  # type: ignore[operator]


def _is_zero(feature: Feature, channels: Channels, zeros: dict[str, set[int]]) -> bool:
    return channels.unit(feature) in zeros.get(feature.producer, ())


@pytest.mark.parametrize("block", ["plain", "dense"])
@pytest.mark.parametrize(("field", "value"), ENTRIES)
def test_every_entry_of_every_table_is_pruned(field: str, value: str, block: str) -> None:
    model = trained(described(12, **{"block": block, field: value}))
    narrow = changed(narrowed(model.architecture, 0.5), latent_size=3)
    assert prune(model, narrow).architecture == narrow
    _zero(model, narrow, np.random.default_rng(0))
    torch.testing.assert_close(
        reconstructed(prune(model, narrow)), reconstructed(model), rtol=0, atol=1e-9
    )


def test_one_channel_of_a_depthwise_convolution_is_left() -> None:
    model = trained(described(12, convolution="depthwise_first"))
    narrow = narrowed(model.architecture, 0.01)
    assert narrow.encoder.stages[0].width == 1
    _zero(model, narrow, np.random.default_rng(0))
    torch.testing.assert_close(
        reconstructed(prune(model, narrow)), reconstructed(model), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("upsampling", ["nearest", "transposed", "pixel_shuffle"])
@pytest.mark.parametrize("convolution", ["standard", "depthwise_first", "pointwise_first"])
def test_a_plain_block_keeps_its_first_layers_and_its_last(
    convolution: str, upsampling: str
) -> None:
    architecture = described(12, convolution=convolution, upsampling=upsampling)
    wide = changed(architecture, encoder__stages__0__layers=4, decoder__stages__0__layers=4)
    model = trained(wide)
    for layers in (3, 2, 1):
        narrow = changed(wide, encoder__stages__0__layers=layers, decoder__stages__0__layers=layers)
        pruned = prune(model, narrow).state_dict()
        expected = model.state_dict()
        for number, origin in enumerate([*range(layers - 1), 3]):
            place = "encoder.stages.0.block.layers.{}.norm.running_var"
            assert torch.equal(pruned[place.format(number)], expected[place.format(origin)])


# Which filters are kept


def test_the_strongest_filters_are_kept_by_norm_and_scale_of_the_batch_norm() -> None:
    model = build_vae(described(12), seed=0).eval()
    norm: Any = model.get_submodule("encoder.stem.norm")
    weight: Any = model.get_submodule("encoder.stem.convolution").weight
    with torch.no_grad():
        weight.zero_()
        weight[:, 0, 0, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
        weight[:, 0, 0, 1] = torch.tensor([0.0, 3.0, 0.0, 0.0])
        norm.weight[:] = torch.tensor([1.0, -1.0, 1.0, 12.0])
        norm.running_var[:] = torch.tensor([1.0, 1.0, 1.0, 9.0])
    channels = trace_channels(model)
    first, second = (strengths(model, channels, one)["encoder.stem.convolution"] for one in NORMS)
    assert first.tolist() == pytest.approx([4, 6, 2, 4], rel=1e-4)
    assert second.tolist() == pytest.approx([4, 18**0.5, 2, 4], rel=1e-4)
    narrow = changed(model.architecture, encoder__stem_width=1)
    kept = prune(model, narrow).get_submodule("encoder.stem.convolution").weight
    assert torch.equal(kept, weight[1:2])  # type: ignore[arg-type]


def test_latent_variables_are_kept_by_the_weights_of_the_mean() -> None:
    model = build_vae(described(12), seed=0).eval()
    with torch.no_grad():
        model.encoder.mean.weight[2] *= 100
        model.encoder.log_variance.weight[1] *= 100
    pruned = prune(model, changed(model.architecture, latent_size=1))
    assert torch.equal(pruned.encoder.mean.weight, model.encoder.mean.weight[2:3])
    assert torch.equal(pruned.encoder.log_variance.weight, model.encoder.log_variance.weight[2:3])


def test_a_dense_block_keeps_the_layers_with_the_strongest_filters() -> None:
    wide = changed(described(12, block="dense"), encoder__stages__0__layers=3)
    model = build_vae(wide, seed=0).eval()
    place = "encoder.stages.0.block.layers.{}.convolution.spatial.weight"
    weights = model.state_dict()
    with torch.no_grad():
        weights[place.format(1)] *= 0.1
    pruned = prune(model, changed(wide, encoder__stages__0__layers=2)).state_dict()
    assert torch.equal(pruned[place.format(0)], weights[place.format(0)])
    without = torch.cat([weights[place.format(2)][:, :7], weights[place.format(2)][:, 10:]], dim=1)
    assert torch.equal(pruned[place.format(1)], without)


def test_channels_are_followed_to_the_flattened_head() -> None:
    model = build_vae(described(12), seed=0)
    channels = trace_channels(model)
    assert channels.reads["encoder.stages.0.block.layers.0.convolution.spatial"] == tuple(
        Feature("encoder.stem.convolution", number, 0, False) for number in range(4)
    )
    read = channels.reads["encoder.mean"]
    assert len(read) == 6 * 9
    assert read[10] == Feature("encoder.stages.1.block.layers.1.convolution.spatial", 1, 1, False)
    assert channels.reads["encoder.stem.convolution"][2] == Feature(IMAGES, 2)
    assert channels.spans == {"decoder.seed.linear": 9}
    assert channels.tied == {"encoder.log_variance": "encoder.mean"}


# Which architectures a model can be pruned to


def test_a_share_gives_widths_of_allowed_multiples() -> None:
    half = narrowed(ORIGINAL, 0.5)
    assert [stage.width for stage in half.encoder.stages] == [16, 32, 64, 128]
    assert (half.decoder.seed_width, half.latent_size) == (128, 128)
    third = narrowed(MODIFIED, 0.3)
    assert third.encoder.stem_width == 8  # 9.6
    assert [stage.width for stage in third.encoder.stages] == [16, 40, 80, 152]
    assert {stage.growth_rate for stage in third.encoder.stages} == {8}
    assert {stage.layers for stage in third.encoder.stages} == {4}
    assert narrowed(ORIGINAL, 0.01).encoder.stages[0].width == 1
    assert narrowed(described(12), 0.5).encoder.stages[0].width == 3  # of 5


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.77, 1])
@pytest.mark.parametrize("architecture", REFERENCES.values())
def test_a_share_is_a_narrowing(architecture: Architecture, share: float) -> None:
    require_narrowing(architecture, narrowed(architecture, share))
    assert (narrowed(architecture, share) == architecture) == (share == 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder__stages__1__width": 7}, "encoder.stages.1.width is 7, that of the trained"),
        ({"decoder__stages__0__layers": 3}, "decoder.stages.0.layers is 3, that of the trained"),
        ({"latent_size": 5}, "latent_size is 5, that of the trained model is 4"),
        ({"activation": "relu"}, "activation is relu, that of the trained model is elu"),
        ({"image_size": 16}, "image_size is 16, that of the trained model is 12"),
        ({"encoder__stem_width": None}, "encoder.stem_width is not set, that of the"),
        ({"encoder__stages__0__block": "plain"}, "encoder.stages.0.block is plain, that of"),
        ({"decoder__stages": [{"width": 5}]}, "the number of decoder.stages is 1, that of"),
    ],
)
def test_no_narrowing_is_refused_with_its_field(fields: dict[str, Any], message: str) -> None:
    wide = described(12, block="dense")
    with pytest.raises(UserError) as refused:
        prune(build_vae(wide, seed=0), changed(wide, **fields), source="small.json")
    assert str(refused.value).startswith(f"small.json: {message}")
    assert "\n" not in str(refused.value)
