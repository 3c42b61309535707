"""Rewrites compute the same function, in float64 up to rounding, and stay away from other cases."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.vae import build_vae
from profiling.batch_norms import randomise_batch_norms
from profiling.complexity import complexity
from profiling.rewrites import fold_batch_norms, remark, rewritten
from search_spaces.architecture import Architecture
from search_spaces.references import MODIFIED, ORIGINAL
from search_spaces.space import SearchSpace

proof = settings(max_examples=40, deadline=None)
small = st.integers(1, 3)
pair = st.tuples(small, small)
sizes = st.tuples(st.integers(1, 3), st.integers(4, 9), st.integers(4, 9))  # batch, height, width
EXACT = 1e-12


def difference(model: nn.Module, changed: nn.Module, *example: Tensor) -> float:
    """Return the largest difference of an output in float64; infinite if shapes differ."""
    doubled = [tensor.double() for tensor in example]
    with torch.no_grad():
        first, second = (copy.deepcopy(one).double().eval()(*doubled) for one in (model, changed))
    pairs = [(first, second)] if isinstance(first, Tensor) else zip(first, second, strict=True)
    return max((a - b).abs().max().item() if a.shape == b.shape else np.inf for a, b in pairs)


def prove(model: nn.Module, name: str, example: Tensor) -> None:
    """Require that one rewrite applies to a model once, and changes only the rounding."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        randomise_batch_norms(model, example)
    changed, done = rewritten(model.double(), [name])
    assert done == {name: 1}
    assert difference(model, changed, example) <= EXACT


def values(channels: int, shape: tuple[int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape[0], channels, *shape[1:], generator=generator)


# Proofs over shapes, kernels and groups


@proof
@given(
    groups=small,
    inside=pair,
    kernel=pair,
    transposed=st.booleans(),
    bias=st.booleans(),
    affine=st.booleans(),
    stride=small,
    shape=sizes,
)
def test_a_norm_is_folded_into_a_convolution(
    groups: int,
    inside: tuple[int, int],
    kernel: tuple[int, int],
    transposed: bool,
    bias: bool,
    affine: bool,
    stride: int,
    shape: tuple[int, int, int],
) -> None:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    channels, width = (groups * count for count in inside)
    layer = make(channels, width, kernel, stride, groups=groups, bias=bias)
    norm = nn.BatchNorm2d(width, affine=affine)
    prove(nn.Sequential(layer, norm), "folding", values(channels, shape))


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), (3, 4)),
        (nn.ConvTranspose1d(4, 6, 3), nn.BatchNorm1d(6), (3, 4, 5)),
        (nn.Conv3d(4, 6, 3, groups=2), nn.BatchNorm3d(6), (2, 4, 3, 4, 5)),
    ],
)
def test_a_norm_is_folded_in_other_dimensions(
    layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]
) -> None:
    prove(nn.Sequential(layer, norm), "folding", torch.rand(shape))


@proof
@given(
    groups=small,
    inside=pair,
    kernel=pair,
    dilation=pair,
    bias=st.booleans(),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    shape=sizes,
)
def test_a_transposed_convolution_of_stride_1_is_a_plain_one(
    groups: int,
    inside: tuple[int, int],
    kernel: tuple[int, int],
    dilation: tuple[int, int],
    bias: bool,
    padding: tuple[int, int],
    shape: tuple[int, int, int],
) -> None:
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    padding = min(padding[0], reach[0]), min(padding[1], reach[1])
    channels, width = (groups * count for count in inside)
    layer = nn.ConvTranspose2d(
        channels, width, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    prove(nn.Sequential(layer), "untransposing", values(channels, shape))


@proof
@given(
    groups=small,
    inside=pair,
    bias=st.booleans(),
    shape=sizes,
    up=st.sampled_from(
        [
            nn.Upsample(scale_factor=2),
            nn.Upsample(scale_factor=(2.0, 2.0)),
            nn.UpsamplingNearest2d(scale_factor=2),
            nn.Upsample(scale_factor=2, mode="nearest-exact"),
        ]
    ),
    padding=st.sampled_from([1, "same"]),
)
def test_upsampling_and_a_convolution_are_one_transposed_convolution(
    groups: int,
    inside: tuple[int, int],
    bias: bool,
    shape: tuple[int, int, int],
    up: nn.Module,
    padding: int | str,
) -> None:
    channels, width = (groups * count for count in inside)
    layer = nn.Conv2d(channels, width, 3, padding=padding, groups=groups, bias=bias)
    prove(nn.Sequential(up, layer), "upsampling", values(channels, shape))


@proof
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=pair,
    dilation=small,
    padded=st.booleans(),
    ceil=st.booleans(),
    shape=sizes,
    activation=st.sampled_from([nn.ELU(), nn.ELU(0.3), nn.ReLU(), nn.LeakyReLU(0.2)]),
)
def test_max_pooling_commutes_with_an_activation_that_never_decreases(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: int,
    padded: bool,
    ceil: bool,
    shape: tuple[int, int, int],
    activation: nn.Module,
) -> None:
    padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
    spread = 1 if padded else dilation
    batch, height, width = shape
    shape = batch, height + 6, width + 6  # room for a dilated window
    pool = nn.MaxPool2d(kernel, stride, padding, spread, ceil_mode=ceil)
    prove(nn.Sequential(activation, pool), "max_pooling", values(2, shape))


@proof
@given(
    groups=small,
    inside=pair,
    bias=st.booleans(),
    kernel=st.integers(1, 4),
    stride=small,
    padded=st.booleans(),
    include=st.booleans(),
    ceil=st.booleans(),
    divisor=st.booleans(),
    shape=sizes,
)
def test_average_pooling_commutes_with_a_1x1_convolution(  # noqa: PLR0913, PLR0917
    groups: int,
    inside: tuple[int, int],
    bias: bool,
    kernel: int,
    stride: int,
    padded: bool,
    include: bool,
    ceil: bool,
    divisor: bool,
    shape: tuple[int, int, int],
) -> None:
    padding = kernel // 2 if padded else 0
    pool = nn.AvgPool2d(kernel, stride, padding, ceil, include, 5 if divisor else None)
    channels, width = (groups * count for count in inside)
    layer = nn.Conv2d(channels, width, 1, groups=groups, bias=bias)
    model, example = nn.Sequential(layer, pool), values(channels, shape)
    if bias and (divisor or (padding and include)):  # the average of a constant is another there
        assert rewritten(model)[1] == {}
        return
    prove(model, "average_pooling", example)


@pytest.mark.parametrize("size", [1, 3, (2, None)])
def test_adaptive_average_pooling_commutes_with_a_1x1_convolution(size: int) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.AdaptiveAvgPool2d(size))
    prove(model, "average_pooling", values(2, (2, 7, 5)))


# Places where a rewrite would be wrong


class Forked(nn.Module):
    """A module after another one whose output is used once more."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.first(values)
        return self.second(seen), seen


class Twice(nn.Module):
    """A module that is called a second time."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.all = nn.Sequential(*modules)

    def forward(self, values: Tensor) -> Tensor:
        return self.all[-1](self.all(values))  # type: ignore[no-any-return]


class Named(nn.Module):
    """A module with two names, called by the second."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.unused, self.first, self.second = second, first, second

    def forward(self, values: Tensor) -> Tensor:
        return self.second(self.first(values))  # type: ignore[no-any-return]


class WeightRead(nn.Module):
    """A layer whose weights the pass reads itself."""

    def __init__(self, layer: nn.Linear, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, values: Tensor) -> Tensor:
        return self.norm(self.layer(values.flatten(1))) @ self.layer.weight  # type: ignore[no-any-return]


def tied() -> nn.Module:
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 2, 3, padding=1), nn.ConvTranspose2d(2, 2, 3, padding=1)
    )
    model[1].weight = model[0].weight
    return model


def hooked() -> nn.Module:
    layer = nn.ConvTranspose2d(2, 2, 3)
    layer.register_forward_hook(lambda module, args, output: output + 1)
    return nn.Sequential(layer)


def conv(kernel: int = 3, **settings: object) -> nn.Conv2d:
    return nn.Conv2d(2, 2, kernel, **{"padding": kernel // 2, **settings})  # type: ignore[arg-type]


UP, POOL, MEAN = nn.Upsample(scale_factor=2), nn.MaxPool2d(2), nn.AvgPool2d(2)
LEFT: dict[str, nn.Module] = {
    "transposed, stride 2": nn.Sequential(nn.ConvTranspose2d(2, 2, 3, 2)),
    "transposed, more padding than kernel": nn.Sequential(nn.ConvTranspose2d(2, 2, 1, padding=1)),
    "transposed, larger output": nn.Sequential(
        nn.ConvTranspose2d(2, 2, 3, output_padding=1, dilation=2)
    ),
    "transposed, called twice": Twice(nn.ConvTranspose2d(2, 2, 3)),
    "transposed, weights shared": tied(),
    "transposed, with a hook": hooked(),
    "transposed, parametrised": nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(2, 2, 3))
    ),
    "bilinear": nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv()),
    "x3": nn.Sequential(nn.Upsample(scale_factor=3), conv()),
    "x2 along one axis": nn.Sequential(nn.Upsample(scale_factor=(2, 1)), conv()),
    "to a size": nn.Sequential(nn.Upsample(size=(16, 16)), conv()),
    "5x5": nn.Sequential(UP, conv(5)),
    "3x3 without padding": nn.Sequential(UP, conv(padding=0)),
    "3x3 of stride 2": nn.Sequential(UP, conv(stride=2)),
    "3x3 dilated": nn.Sequential(UP, conv(dilation=2, padding=2)),
    "3x3 with reflected border": nn.Sequential(UP, conv(padding_mode="reflect")),
    "upsampled map used twice": Forked(UP, conv()),
    "upsampling then crop": nn.Sequential(UP, nn.ZeroPad2d(-1), conv()),
    "GELU": nn.Sequential(nn.GELU(), POOL),
    "SiLU": nn.Sequential(nn.SiLU(), POOL),
    "ELU of negative scale": nn.Sequential(nn.ELU(-1.0), POOL),
    "negative slope": nn.Sequential(nn.LeakyReLU(-0.5), POOL),
    "in place": nn.Sequential(nn.ReLU(inplace=True), POOL),
    "activation used twice": Forked(nn.ELU(), POOL),
    "dilated windows outside": nn.Sequential(nn.ELU(), nn.MaxPool2d(2, padding=1, dilation=3)),
    "average, not maximum": nn.Sequential(nn.ELU(), MEAN),
    "average after 3x3": nn.Sequential(conv(), MEAN),
    "average after 1x1 of stride 2": nn.Sequential(conv(1, stride=2), MEAN),
    "average after a padded 1x1": nn.Sequential(conv(1, padding=1), MEAN),
    "maximum after 1x1": nn.Sequential(conv(1), POOL),
    "1x1 used twice": Forked(conv(1), MEAN),
    "norm used by a second name": Named(conv(), nn.BatchNorm2d(2)),
    "norm called twice": Twice(conv(), nn.BatchNorm2d(2)),
    "layer used twice": Forked(conv(), nn.BatchNorm2d(2)),
    "norm of the batch": nn.Sequential(conv(), nn.BatchNorm2d(2, track_running_stats=False)),
    "norm before the layer": nn.Sequential(nn.BatchNorm2d(2), conv()),
    "weights read by the pass": WeightRead(nn.Linear(128, 128), nn.BatchNorm1d(128)),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_rewritten_is_left(case: str) -> None:
    model, example = copy.deepcopy(LEFT[case]), values(2, (3, 8, 8))
    randomise_batch_norms(model, example)
    changed, done = rewritten(model)
    assert done == {}
    assert difference(model, changed, example) == 0


# Several rewrites, and whole models


def test_folding_moves_scale_and_shift_into_the_layer() -> None:
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)
    with torch.no_grad():
        convolution.weight.fill_(2)
        convolution.bias.fill_(1)  # type: ignore[union-attr]
        norm.weight.fill_(3)
        norm.bias.fill_(5)
        norm.running_mean.fill_(7)  # type: ignore[union-attr]
        norm.running_var.fill_(4)  # type: ignore[union-attr]
    folded, done, total = fold_batch_norms(nn.Sequential(convolution, norm))
    # (2x + 1 - 7) / 2 * 3 + 5 = 3x - 4
    assert (done, total) == (1, 1)
    assert folded[0].weight.item() == 3  # type: ignore[index]
    assert folded[0].bias.item() == -4  # type: ignore[index]
    assert isinstance(folded[1], nn.Identity)  # type: ignore[index]
    assert convolution.weight.item() == 2


def test_rewrites_follow_from_one_another_past_folded_norms() -> None:
    model = nn.Sequential(
        nn.Upsample(scale_factor=2),
        nn.ConvTranspose2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ELU(),
        nn.MaxPool2d(2),
        nn.ConvTranspose2d(4, 4, 1),
        nn.BatchNorm2d(4),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
    )
    example = values(2, (2, 6, 6))
    randomise_batch_norms(model, example)
    changed, done = rewritten(model)
    assert done == {
        "folding": 2, "untransposing": 2, "upsampling": 1, "max_pooling": 1, "average_pooling": 2
    }  # fmt: skip
    kinds = [type(module).__name__ for module in changed.children()]
    assert [kind for kind in kinds if kind != "Identity"] == [
        "ConvTranspose2d", "MaxPool2d", "ELU", "AvgPool2d", "AdaptiveAvgPool2d", "Conv2d"
    ]  # fmt: skip
    assert difference(model, rewritten(model.double())[0], example) <= EXACT
    assert remark(done).startswith("2 x BatchNorm folded, 2 x transposed convolution made plain")
    assert remark({}) == "no rewrite applies"


def test_a_rewritten_copy_has_the_type_of_the_weights_and_leaves_the_model() -> None:
    model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3, padding=1)).bfloat16()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    changed, _ = rewritten(model)
    assert {parameter.dtype for parameter in changed.parameters()} == {torch.bfloat16}
    assert model.training
    assert not any(module.training for module in changed.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def vae(architecture: Architecture, size: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Build a network whose BatchNorms do something, without amplifying rounding to its output."""
    generator = torch.Generator().manual_seed(0)
    model = build_vae(architecture.resized(size), seed=0)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight.data, norm.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
            for tensor in (norm.bias.data, norm.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=generator)  # type: ignore[union-attr]
    images = torch.rand(2, 3, size, size, generator=generator)
    return model, (images, torch.randn(2, architecture.latent_size, generator=generator))


WIDE = SearchSpace.load("wide@64")
MEMBERS = [WIDE.architecture(WIDE.sample(np.random.default_rng(seed))) for seed in range(4)]


@pytest.mark.parametrize("architecture", [ORIGINAL, MODIFIED, *MEMBERS], ids=lambda a: a.digest[:8])
@pytest.mark.slow
def test_a_whole_network_computes_the_same(architecture: Architecture) -> None:
    model, example = vae(architecture, 64)
    changed, done = rewritten(model.double())
    assert done["folding"] > 0
    assert difference(model, changed, *example) <= EXACT


@pytest.mark.parametrize(
    ("architecture", "before", "after"),
    [(ORIGINAL, 664_879_104, 495_673_344), (MODIFIED, 1_101_969_536, 710_006_912)],
)
@pytest.mark.slow
def test_the_references_need_fewer_multiply_adds(
    architecture: Architecture, before: int, after: int
) -> None:
    model = build_vae(architecture, seed=0)
    example = torch.rand(1, 3, 144, 144), torch.rand(1, architecture.latent_size)
    assert complexity(model, example).macs == before
    assert complexity(rewritten(model)[0], example).macs == after
