"""Models as files: quantisation that spares layers, metadata, sensitivity of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from profiling.backends import BACKENDS, INT8
from profiling.engines import compiled_openvino, openvino_graph_of
from profiling.errors import ProfilingError
from profiling.int8 import onnx_in_float, openvino_in_float
from profiling.runtime_files import FILE_BACKENDS, Converter, loaded, with_metadata
from profiling.sensitivity import rounded_values, rounded_weights, sensitivities

CPU = torch.device("cpu")
IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def two_layers() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
        ).eval()


def converter() -> Converter:
    return Converter(two_layers(), (IMAGES[:1],), ["out"])


def needs(backend: str, precision: str) -> None:
    if reason := BACKENDS[backend].reason_against(CPU, precision):
        pytest.skip(reason)


def test_the_backends_that_read_files() -> None:
    assert FILE_BACKENDS == (
        "onnxruntime", "onnxruntime_rewritten", "openvino", "openvino_rewritten",
    )  # fmt: skip


@pytest.mark.slow
def test_onnxruntime_keeps_a_layer_in_floating_point(tmp_path: Path) -> None:
    needs("onnxruntime", INT8)
    made = converter().convert("onnxruntime", INT8, IMAGES, keep=("2",))
    assert made.in_float == ()
    assert onnx_in_float(made.content[".onnx"]) == [("2", "convolution")]
    path = with_metadata(made.write(tmp_path / "plain"), {"a": "b"}).write(tmp_path / "told")
    files = path, tmp_path / "plain.onnx"
    outputs = [loaded(one, "onnxruntime", INT8, 1)(IMAGES[:1])[0] for one in files]
    assert torch.equal(*outputs)
    assert (outputs[0] - two_layers()(IMAGES[:1])).abs().max() < 0.05


@pytest.mark.slow
def test_openvino_keeps_a_layer_in_floating_point(tmp_path: Path) -> None:
    needs("openvino", INT8)
    import openvino

    every = converter().convert("openvino", INT8, IMAGES)
    assert every.in_float == ()
    made = converter().convert("openvino", INT8, IMAGES, keep=("2",))
    assert made.in_float == ()
    path = with_metadata(made.write(tmp_path / "plain"), {"a": "b"}).write(tmp_path / "told")
    assert openvino.Core().read_model(path).get_rt_info(["vae_nas", "a"]).value == "b"
    kept, whole = (
        openvino_in_float(compiled_openvino(openvino_graph_of(one), 1))
        for one in (path, every.write(tmp_path / "every"))
    )
    assert [kind for _, kind in kept] == ["convolution"]
    assert whole == []
    files = path, tmp_path / "plain.xml"
    outputs = [loaded(one, "openvino", INT8, 1)(IMAGES[:1])[0] for one in files]
    assert torch.equal(*outputs)
    assert (outputs[0] - two_layers()(IMAGES[:1])).abs().max() < 0.05


@pytest.mark.slow
def test_a_layer_in_floating_point_has_its_name() -> None:
    needs("onnxruntime", INT8)
    up = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 3, 3, padding=1)).eval()
    made = Converter(up, (IMAGES[:1],), ["out"]).convert("onnxruntime", INT8, IMAGES)
    assert made.in_float == (("1", "transposed convolution"),)
    assert made.note == "stays in floating point: 1 x transposed convolution"


def test_what_cannot_be_converted_is_refused() -> None:
    needs("onnxruntime", INT8)
    with pytest.raises(ProfilingError, match="onnxruntime: int8 needs calibration images"):
        converter().convert("onnxruntime", INT8)
    with pytest.raises(ProfilingError, match="onnxruntime: cannot compute in 'bfloat16'"):
        converter().convert("onnxruntime", "bfloat16")


def test_a_file_that_is_no_model_cannot_be_run(tmp_path: Path) -> None:
    needs("onnxruntime", "float32")
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(ProfilingError, match=r"onnxruntime: cannot run x\.onnx: "):
        loaded(tmp_path / "x.onnx", "onnxruntime", "float32", 1)


def test_values_on_the_levels_are_not_rounded() -> None:
    values = torch.arange(-100, 156).float() / 100
    torch.testing.assert_close(rounded_values(values), values)
    assert (rounded_values(values + 0.003) - values - 0.003).abs().max() > 1e-3
    weights = torch.tensor([[127.0, -64.0], [1.27, 0.5]])
    torch.testing.assert_close(rounded_weights(weights, 0), weights)
    assert not torch.allclose(rounded_weights(weights, 1), weights)
    assert torch.equal(rounded_values(torch.zeros(3)), torch.zeros(3))


def test_the_layer_that_8_bits_harm_most_comes_first() -> None:
    model = two_layers()
    first, second = model[0].weight, model[2].weight
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    with torch.no_grad():  # one channel is a thousand times as large as those that count
        first[0] *= 1000
        second[:, 0] = 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exact = model(IMAGES).detach()

    def loss(changed: nn.Module) -> float:
        with torch.inference_mode():
            return float((changed(IMAGES) - exact).abs().mean())

    told: list[tuple[int, int]] = []
    found = sensitivities(model, loss, lambda *at: told.append(at))
    assert told == [(1, 2), (2, 2)]
    assert list(found) == ["2", "0"]
    assert found["2"] > 10 * found["0"] > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(IMAGES), exact)
