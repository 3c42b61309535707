"""The built networks: every choice of every table, shapes, parameters and paths."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from nas.blocks import BLOCKS
from nas.layers import DOWNSAMPLING, UPSAMPLING
from nas.vae import VAE, build_vae
from search_spaces.architecture import CHOICES, Architecture
from search_spaces.references import PUBLISHED, REFERENCES
from search_spaces.sizes import Size, sides
from tests.helpers.small_networks import ENTRIES, TABLES, described

# What the authors' published implementation computes, for parameters filled by `_fill`.
EXPECTED = json.loads((Path(__file__).parent / "data/reference_outputs.json").read_text())
SAMPLED = [(0, 0, 0, 0), (0, 1, 72, 72), (1, 2, 143, 143), (1, 0, 10, 100)]
WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def image(architecture: Architecture, batch: int = 2) -> Tensor:
    return torch.rand(batch, *architecture.image_shape)


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request: pytest.FixtureRequest) -> tuple[str, VAE]:
    name: str = request.param
    return name, build_vae(REFERENCES[name], seed=0).eval()


def test_reference_has_the_published_parameters_and_layers(reference: tuple[str, VAE]) -> None:
    name, model = reference
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name].params
    layers = [
        {"type": type(module).__name__, "weight_shape": list(module.weight.shape)}
        for module in model.modules()
        if isinstance(module, WEIGHTED)
    ]
    assert layers == EXPECTED[name]["convolutions_and_linears"]


def test_reference_computes_what_the_published_code_computes(reference: tuple[str, VAE]) -> None:
    (name, model), features = reference, list[Tensor]()
    expected = EXPECTED[name]
    _fill(model)
    position = torch.arange(2 * 3 * 144 * 144, dtype=torch.float64)
    images = 0.5 + 0.5 * torch.sin(0.013 * position) * torch.cos(0.00071 * position)
    with torch.inference_mode(), _record(model.encoder.head, features):
        rebuilt, mean, log_variance = model(
            images.float().reshape(2, 3, 144, 144), torch.zeros(2, 128)
        )
    assert list(features[0].shape) == expected["features_shape"]
    assert list(rebuilt.shape) == expected["recon_shape"]
    computed = {
        "mean_first8": mean.flatten()[:8].tolist(),
        "mean_norm": mean.norm().item(),
        "logvar_norm": log_variance.norm().item(),
        "recon_mean": rebuilt.mean().item(),
        "recon_std": rebuilt.std().item(),
        "recon_samples": [rebuilt[where].item() for where in SAMPLED],
    }
    assert computed == {key: pytest.approx(expected[key], abs=1e-5) for key in computed}


def test_tables_cover_every_choice() -> None:
    assert {field: tuple(table) for field, table in TABLES.items()} == {
        field: tuple(sorted(values, key=list(TABLES[field]).index))
        for field, values in CHOICES.items()
    }


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("field", "value"), ENTRIES)
def test_every_entry_builds_and_learns(field: str, value: str, block: str) -> None:
    model = build_vae(described(12, **{"block": block, field: value}), seed=0)
    images = image(model.architecture)
    rebuilt, mean, log_variance = model(images)
    assert rebuilt.shape == images.shape
    assert mean.shape == log_variance.shape == (2, 4)
    (rebuilt.sum() + log_variance.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", [144, 100, 96, 64, 33, 7, (144, 96), (7, 33), (18, 4), (5, 8)])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("downsampling", "upsampling"), list(zip(DOWNSAMPLING, UPSAMPLING, strict=True))
)
def test_reconstructs_any_size(size: Size, block: str, downsampling: str, upsampling: str) -> None:
    architecture = described(size, block=block, downsampling=downsampling, upsampling=upsampling)
    with torch.device("meta"):
        model, images, outputs = build_vae(architecture), image(architecture), list[Tensor]()
    for stage in (*model.encoder.stages, *model.decoder.stages):
        _record(stage, outputs)
    assert model(images)[0].shape == images.shape
    assert [tuple(output.shape[-2:]) for output in outputs] == [
        sides(size) for size in (*architecture.encoder_sizes[1:], *architecture.decoder_sizes[1:])
    ]


def test_pooling_averages_what_lies_inside_an_odd_image() -> None:
    assert DOWNSAMPLING["average"].after
    pooled = DOWNSAMPLING["average"].after.build()(torch.arange(9.0).reshape(1, 1, 3, 3))
    assert pooled.flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_dense_layers_see_the_input_and_all_earlier_layers() -> None:
    model = build_vae(described(block="dense"), seed=0)
    stage = model.get_submodule("encoder.stages.1")
    seen = [m.num_features for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    assert seen == [5, 5 + 3, 5 + 3 + 3]
    features = torch.rand(2, 5, 6, 6)
    joined = stage.get_submodule("block")(features)
    assert joined.shape == (2, 11, 6, 6)
    assert torch.equal(joined[:, :5], features)


@pytest.mark.parametrize(
    ("convolution", "shapes"),
    [
        ("standard", [(6, 5, 3, 3), (6, 6, 3, 3)]),
        ("depthwise_first", [(5, 1, 3, 3), (6, 5, 1, 1), (6, 1, 3, 3), (6, 6, 1, 1)]),
        ("pointwise_first", [(6, 5, 1, 1), (6, 1, 3, 3), (6, 6, 1, 1), (6, 1, 3, 3)]),
    ],
)
def test_convolution_kinds_are_what_their_names_say(
    convolution: str, shapes: list[tuple[int, ...]]
) -> None:
    stage = build_vae(described(convolution=convolution)).encoder.stages[1]
    found = [tuple(m.weight.shape) for m in stage.modules() if isinstance(m, nn.Conv2d)]
    assert found == shapes


@pytest.mark.parametrize("block", BLOCKS)
def test_all_work_sits_in_modules_called_once(block: str) -> None:
    model = build_vae(described(size=7, block=block, convolution="pointwise_first"))
    calls, inside = Counter[str](), list[str]()
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_pre_hook(lambda _m, _i, name=name: inside.append(name))
            module.register_forward_hook(lambda _m, _i, _o: calls.update([inside.pop()]))

    class Outside(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            assert inside, f"{func} runs in no leaf module"
            return func(*args, **(kwargs or {}))

    images = image(model.architecture)
    with Outside():  # type: ignore[no-untyped-call]
        model(images)
    leaves = [name for name, module in model.named_modules() if not list(module.children())]
    assert calls == Counter(leaves)


def test_paths_name_the_parts() -> None:
    model = build_vae(described(size=7, block="dense", convolution="depthwise_first"))
    for path in (
        "encoder.stem.convolution",
        "encoder.stages.1.block.layers.1.convolution.depthwise",
        "encoder.stages.1.transition.convolution",
        "encoder.stages.1.resampling",
        "encoder.head",
        "encoder.log_variance",
        "reparameterise",
        "decoder.seed.linear",
        "decoder.stages.1.crop",
        "decoder.output.convolution",
    ):
        assert model.get_submodule(path)


def test_sampling_follows_eps_in_eval_mode_too() -> None:
    model = build_vae(described(), seed=0).eval()
    images, eps = image(model.architecture), torch.randn(2, 4)
    with torch.no_grad():
        rebuilt, mean, log_variance = model(images, eps)
        assert torch.equal(rebuilt, model.decode(mean + (0.5 * log_variance).exp() * eps))
        assert torch.equal(model.reconstruct(images), model(images, torch.zeros(2, 4))[0])
        assert not torch.equal(model(images)[0], model(images)[0])
        first, again = (model.sample(3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.shape == (3, 3, 12, 12)
    assert torch.equal(first, again)


def test_seed_alone_decides_the_parameters() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (build_vae(described(), seed) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.encoder.mean.weight, again.encoder.mean.weight)
    assert not torch.equal(first.encoder.mean.weight, other.encoder.mean.weight)


def test_builds_without_memory_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = build_vae(REFERENCES["modified"])
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_exports_as_one_graph() -> None:
    model = build_vae(described(size=7, block="dense"), seed=0).eval()
    inputs = (image(model.architecture), torch.randn(2, 4))
    exported = torch.export.export(model, inputs).module()
    torch.testing.assert_close(exported(*inputs)[0], model(*inputs)[0])


def _fill(model: VAE) -> None:
    """Fill parameters by a formula that depends on each tensor's shape alone."""
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            shape = module.weight.shape
            kept = (0, 2, 3) if isinstance(module, nn.ConvTranspose2d) else range(1, len(shape))
            fan = math.prod(shape[dimension] for dimension in kept)
            wave = torch.sin(1.7 * _flat(module.weight) + 0.3) * math.sqrt(3 / fan)
            assert module.bias is not None
            _set(module.weight, wave)
            _set(module.bias, 0.05 * torch.cos(_flat(module.bias)))
        elif isinstance(module, nn.BatchNorm2d):
            position = _flat(module.weight)
            assert module.running_mean is not None
            assert module.running_var is not None
            _set(module.weight, 1 + 0.1 * torch.sin(position))
            _set(module.bias, 0.1 * torch.cos(position))
            _set(module.running_mean, 0.05 * torch.sin(position / 2))
            _set(module.running_var, 1 + 0.2 * torch.cos(position / 2) ** 2)


def _flat(tensor: Tensor) -> Tensor:
    return torch.arange(tensor.numel(), dtype=torch.float64)


def _set(tensor: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(values.reshape(tensor.shape))


def _record(module: nn.Module, outputs: list[Tensor]) -> RemovableHandle:
    return module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
