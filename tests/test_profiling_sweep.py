"""Sweeps of one layer, specified by hand or taken from a model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from profiling import sweep
from profiling.complexity import complexity
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from profiling.handmade import LAYER_TYPES, parse_layer
from profiling.latency import LatencyConfig
from profiling.roofline import Peaks
from profiling.sweep import SWEEP_COLUMNS, capture_input, layer_sweep

QUICK = LatencyConfig(min_rounds=2, max_rounds=2, max_warmup=2, warmup_window=1, min_sample_ms=0)


@pytest.fixture(autouse=True)
def fixed_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = Peaks(
        gemm_gflop_s=100, copy_gb_s=((10**6, 10),), launch_us=1, environment=fingerprint()
    )
    monkeypatch.setattr(sweep, "measure_peaks", lambda threads, device: peaks)


def text_of(kind: str) -> str:
    """Write a small layer of a kind; 8 pixels, 4 channels in, and 6 out where it has them."""
    values = {"in": 4, "out": 6, "size": 8}
    return " ".join([kind, *(f"{key}={values[key]}" for key in LAYER_TYPES[kind].required)])


@pytest.mark.parametrize("kind", LAYER_TYPES)
def test_every_kind_reads_back_builds_and_runs(kind: str) -> None:
    layer = parse_layer(text_of(kind) + " batch=2")
    assert parse_layer(str(layer)) == layer
    module, inputs = layer.build()
    assert tuple(tuple(tensor.shape) for tensor in inputs) == layer.input_shapes
    output: Tensor = module.eval()(*inputs)
    assert output.shape[:2] == (2, layer.values.get("out", 4))
    assert complexity(*layer.build("meta")).launches >= 1


@pytest.mark.parametrize(
    ("text", "macs", "output_size"),
    [
        ("conv in=4 out=6 size=8", 64 * 9 * 4 * 6, 8),
        ("conv in=4 out=6 size=8 stride=2 groups=2", 16 * 9 * 2 * 6, 4),
        ("dsconv in=4 out=6 size=8", 64 * (9 * 4 + 4 * 6), 8),
        ("depthwise in=4 size=8 kernel=5", 64 * 25 * 4, 8),
        ("pointwise in=4 out=6 size=8", 64 * 4 * 6, 8),
        ("convtranspose in=4 out=6 size=8", 64 * 9 * 4 * 6, 8),
        ("convtranspose in=4 out=6 size=8 stride=2", 64 * 9 * 4 * 6, 16),
        ("convtranspose in=4 out=6 size=8 stride=2 kernel=2", 64 * 4 * 4 * 6, 16),
        ("convtranspose in=4 out=6 size=8 stride=2 kernel=4", 64 * 16 * 4 * 6, 16),
        ("upsample in=4 size=8 scale=3", 0, 24),
        ("maxpool in=4 size=8", 0, 4),
    ],
)
def test_layers_do_what_they_say(text: str, macs: int, output_size: int) -> None:
    module, inputs = parse_layer(text).build()
    assert complexity(module, inputs).macs == macs
    assert module(*inputs).shape[-1] == output_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "kind '' is not one of"),
        ("dsconf in=4 out=6 size=8", "did you mean 'dsconv'"),
        ("conv in=4 out=6 sise=8", "did you mean 'size'"),
        ("relu in=4 size=8 kernel=3", "key 'kernel' is not one of in, size, batch"),
        ("conv in=4 size=8", r"conv also needs out=\.\.\."),
        ("conv in=4 out=six size=8", "out='six' is not a whole number"),
        ("conv in=4 out=-6 size=8", "out='-6' is not a whole number"),
        ("conv in=4 out=6 size=0", "size=0 is not at least 1"),
        ("cat in=4 out=4 size=8", "cat needs more output channels than its first input has"),
    ],
)
def test_a_layer_badly_written_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ProfilingError, match=message) as error:
        parse_layer(text)
    assert "\n" not in str(error.value)


def test_values_torch_cannot_build_are_refused() -> None:
    with pytest.raises(ProfilingError, match="groups"):
        parse_layer("conv in=4 out=6 size=8 groups=3").build("meta")


def test_a_width_keeps_the_proportion_of_channels() -> None:
    layer = parse_layer("conv in=64 out=128 size=8")
    assert parse_layer("conv in=16 out=32 size=8") == layer.scaled_to(32)
    assert parse_layer("relu in=16 size=8") == parse_layer("relu in=4 size=8").scaled_to(16)
    with pytest.raises(ProfilingError, match="use a multiple of 128"):
        layer.scaled_to(33)


def test_a_sweep_has_a_line_per_combination() -> None:
    seen: list[tuple[int, int]] = []
    frame = layer_sweep(
        parse_layer("conv in=2 out=4 size=4"),
        {"batch": [1, 3], "width": [4, 8]},
        QUICK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert tuple(frame.columns) == SWEEP_COLUMNS
    assert list(zip(frame["batch"], frame["width"], strict=True)) == [
        (1, 4),
        (1, 8),
        (3, 4),
        (3, 8),
    ]
    assert frame["macs"].tolist() == [16 * 9 * 8, 16 * 9 * 32, 3 * 16 * 9 * 8, 3 * 16 * 9 * 32]
    assert (frame["time_ms"] > 0).all()
    assert frame["layer"].iloc[-1] == "conv in=4 out=8 size=4 kernel=3 stride=1 groups=1 batch=3"
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("text", "over", "message"),
    [
        ("conv in=2 out=4 size=4", {"kernal": [3]}, "'kernal' is not one of batch, width, size"),
        ("conv in=2 out=4 size=4", {"batch": [0]}, "not a list of positive numbers"),
        ("conv in=2 out=4 size=4", {"size": []}, "not a list of positive numbers"),
        ("conv in=2 out=4 size=4", {"threads": [1, 1025]}, "threads=1025 is too many"),
        ("maxpool in=2 size=4", {"size": [4, 1]}, "cannot take an example of shape"),
        ("conv in=2 out=4 size=4", {"size": [4, 1000000]}, "needs .* GB"),
        ("linear in=2 out=4", {"size": [4]}, "key 'size'"),
    ],
)
def test_a_bad_sweep_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, text: str, over: dict[str, list[int]], message: str
) -> None:
    monkeypatch.delattr(sweep, "measure_latency")
    with pytest.raises(ProfilingError, match=message):
        layer_sweep(parse_layer(text), over, QUICK)


class Doubler(nn.Module):
    """Doubles in place, so that what came in is gone afterwards."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mul_(2)


def test_a_captured_layer_has_its_true_input() -> None:
    model = nn.Sequential(Doubler(), nn.Sequential(nn.Identity(), Doubler()))
    example = torch.tensor([[1.0, 3.0]])
    captured = capture_input(model, "1.1", example)
    assert captured.module is model.get_submodule("1.1")
    assert torch.equal(captured.inputs[0], torch.tensor([[2.0, 6.0]]))
    assert torch.equal(example, torch.tensor([[1.0, 3.0]]))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_captured_layer_is_swept_over_batch_and_threads_only() -> None:
    captured = capture_input(nn.Sequential(nn.ELU(), nn.Linear(2, 3)), "1", torch.rand(1, 2))
    frame = layer_sweep(captured, {"batch": [1, 4], "threads": [1]}, QUICK)
    assert frame["macs"].tolist() == [6, 24]
    assert frame["layer"].tolist() == ["1", "1"]
    with pytest.raises(ProfilingError, match="'width' is not one of batch, threads for 1"):
        layer_sweep(captured, {"width": [4]}, QUICK)


def test_unknown_paths_offer_the_nearest() -> None:
    model = nn.Sequential()
    model.add_module("stages", nn.Sequential(nn.ELU(), nn.ELU()))
    with pytest.raises(ProfilingError, match=r"no module 'stage.1'.*did you mean stages\.1"):
        capture_input(model, "stage.1", torch.rand(1, 2))
    with pytest.raises(ProfilingError, match="try stages"):
        capture_input(model, "x", torch.rand(1, 2))
    with pytest.raises(ProfilingError, match=r"no module 'x' in ELU: it has no modules inside$"):
        capture_input(nn.ELU(), "x", torch.rand(1, 2))


def test_a_module_that_the_pass_does_not_call_is_refused() -> None:
    model = nn.Linear(2, 2)
    model.unused = nn.ELU()
    with pytest.raises(ProfilingError, match="'unused' is not called with tensors"):
        capture_input(model, "unused", torch.rand(1, 2))
