"""Each backend computes the same result, changes no model, and says why it is unavailable."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from profiling import backends, comparison, engines, onnx_export
from profiling.backends import BACKENDS, BFLOAT16, FLOAT32, INT8, Backend, prepare_backend
from profiling.comparison import compare_backends
from profiling.errors import ProfilingError
from profiling.latency import LatencyConfig
from profiling.mapped import mapped_weights
from profiling.onnx_export import export_onnx, onnx_model

QUICK = LatencyConfig(
    min_rounds=2, max_rounds=2, warmup_window=1, max_warmup=2, min_sample_ms=0, batch=2
)


class Tiny(nn.Module):
    """What our networks are made of, sampling included; outputs a dict to have a structure."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ELU(inplace=True),
            nn.AvgPool2d(2, ceil_mode=True),
        )
        self.up = nn.Sequential(
            nn.BatchNorm2d(4),
            nn.ELU(),
            nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=4),
            nn.BatchNorm2d(4),
        )

    def forward(self, images: Tensor, eps: Tensor | None = None) -> dict[str, Any]:
        code = self.down(images)
        noisy = code + (torch.randn_like(code) if eps is None else eps)
        return {"image": self.up(noisy)[:, :, :5], "code": (code, noisy)}


def tiny() -> Tiny:
    """Build it with BatchNorms that do something, as after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tiny()
        for _ in range(3):
            model(torch.rand(4, 3, 6, 6) * 3)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
    return model


EXAMPLE = (
    torch.linspace(0, 1, 108).reshape(1, 3, 6, 6),
    torch.linspace(-1, 1, 36).view(1, 4, 3, 3),
)


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Capture and check the graph as ever, but run it without minutes of C++ compilation."""
    prepare = partial(engines.compiled, engine="aot_eager")
    lower = {BFLOAT16: engines.autocast(prepare)}
    quick = replace(BACKENDS["compile"], prepare=prepare, lower=lower)
    monkeypatch.setitem(BACKENDS, "compile", quick)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name,
            dtype,
            marks=[pytest.mark.slow] * name.startswith(("onnxruntime", "openvino", "compile")),
        )
        for name in BACKENDS
        for dtype in BACKENDS[name].precisions
    ],
)
def test_a_backend_computes_the_same_and_changes_nothing(name: str, dtype: str) -> None:
    if reason := BACKENDS[name].reason_against(torch.device("cpu"), dtype):
        pytest.skip(reason)
    most = {FLOAT32: 1e-5, BFLOAT16: 0.05, INT8: 0.1}[dtype]
    images = EXAMPLE if dtype == INT8 else None
    model = tiny()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    threads, shape = torch.get_num_threads(), EXAMPLE[0].clone()
    ready = prepare_backend(name, model, EXAMPLE, dtype=dtype, calibration=images)
    with torch.inference_mode():
        output = ready.run(*(arg.clone() for arg in EXAMPLE))
        expected = copy.deepcopy(model).eval()(*(arg.clone() for arg in EXAMPLE))
    assert output["image"].shape == (1, 4, 5, 6)
    torch.testing.assert_close(output, expected, atol=20 * most, rtol=0)  # of outputs up to 10
    assert ready.max_error <= most
    assert ready.preparation_s > 0
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(EXAMPLE[0], shape)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["eager", "channels_last", "bn_folded", "rewritten"])
def test_the_weights_of_what_runs_in_torch_are_mapped_like_eager_s(name: str) -> None:
    run = prepare_backend(name, tiny(), EXAMPLE).run
    assert isinstance(run, nn.Module)  # weights of other callables stay where they are
    before = [parameter.data_ptr() for parameter in run.parameters()]
    with mapped_weights([run]), torch.inference_mode():
        assert all(p.data_ptr() != b for p, b in zip(run.parameters(), before, strict=True))
        run(*(arg.clone() for arg in EXAMPLE))


@pytest.mark.slow
def test_one_process_can_compile_many_models() -> None:
    # torch keeps at most 8 compiled variants of one code object and then refuses.
    for width in range(1, 11):
        model = nn.Sequential(nn.Linear(2, width), nn.ReLU())
        run, _ = engines.compiled(model, (torch.rand(1, 2),), 1, engine="eager")
        with torch.inference_mode():
            assert run(torch.rand(1, 2)).shape == (1, width)


def test_compilation_of_only_a_part_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values + 1 if float(values.sum()) > 0 else values - 1

    with pytest.raises(ProfilingError, match="compile: cannot run this model"):
        prepare_backend("compile", Branching(), torch.ones(2, 2))


def with_backend(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    def prepare(model: nn.Module, args: Any, threads: int) -> tuple[engines.ForwardPass, str]:
        return lambda *args: change(model(*args)), "changed"

    monkeypatch.setitem(BACKENDS, name, Backend("a test", lambda device: None, prepare))


def test_a_wrong_output_is_refused_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, "wrong", lambda output: output + 0.25)
    with pytest.raises(ProfilingError, match=r"wrong: .* differs from float64's by 0\.25"):
        prepare_backend("wrong", nn.Linear(2, 2), torch.rand(1, 2))


def test_a_model_that_draws_random_numbers_asks_for_its_noise() -> None:
    with pytest.raises(ProfilingError, match="pass the noise as a further input"):
        prepare_backend("channels_last", tiny(), EXAMPLE[0])


def test_an_unknown_backend_offers_the_nearest() -> None:
    with pytest.raises(ProfilingError, match="did you mean 'compile'"):
        compare_backends(tiny(), EXAMPLE, ["compil"])


def test_a_missing_extra_names_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    absent = ("onnx", "onnxscript", "onnxruntime", "openvino")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    for name, extra in {"onnxruntime": "onnx", "openvino": "backends"}.items():
        with pytest.raises(ProfilingError, match=rf"pip install 'vae-nas\[{extra}\]'"):
            prepare_backend(name, tiny(), EXAMPLE)
    with pytest.raises(ProfilingError, match=r"pip install 'vae-nas\[onnx\]'"):
        export_onnx(tiny(), EXAMPLE, Path("model.onnx"))


def test_a_comparison_keeps_the_line_of_what_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with_backend(monkeypatch, "wrong", lambda output: output + 1)
    monkeypatch.setitem(
        BACKENDS, "absent", Backend("", lambda device: "needs a wand", engines.as_it_is)
    )
    seen: list[tuple[int, int]] = []
    model = nn.Sequential(nn.Linear(2, 2))
    rows = compare_backends(
        model,
        torch.rand(1, 2),
        ["wrong", "absent", "bn_folded"],
        QUICK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [row.name for row in rows] == ["eager", "wrong", "absent", "bn_folded"]
    records = [row.record() for row in rows]
    assert records[0]["speed_up"] == 1.0
    assert str(records[1]["reason"]).startswith("its output differs from float64's by 1")
    assert (records[2]["reason"], records[2]["ms"]) == ("needs a wand", None)
    assert records[3]["note"] == "no rewrite applies"
    assert records[3]["reason"] is None
    assert rows[3].latency is not None
    assert rows[3].latency.subject.input_shapes == ((2, 2),)
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5, 6, 6]
    assert {total for _, total in seen} == {6}


@pytest.mark.slow
def test_each_precision_has_a_row_and_rewrites_only_where_one_applies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lower = {BFLOAT16: engines.autocast(engines.as_it_is)}
    plain = Backend("", lambda device: None, engines.as_it_is, lower)
    table = {"eager": plain, "pooled": replace(plain, rewrites=("max_pooling",))}
    for name in set(BACKENDS) - set(table):
        monkeypatch.delitem(BACKENDS, name)
    for name, backend in table.items():
        monkeypatch.setitem(BACKENDS, name, backend)
    for module in (backends, comparison):
        monkeypatch.setattr(module, "has_bfloat16", lambda device: True)
    plain_model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.MaxPool2d(2))
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ELU(), nn.MaxPool2d(2))

    def rows(model: nn.Module, names: list[str] | None = None) -> list[tuple[str, str, str]]:
        found = compare_backends(model, torch.rand(1, 1, 6, 6), names, QUICK)
        return [(row.name, row.dtype, row.note) for row in found]

    remark = "1 x max pooling before its activation"
    eager = [("eager", "float32", ""), ("eager", "bfloat16", "")]
    assert rows(plain_model) == eager
    assert rows(model) == [*eager, ("pooled", "float32", remark), ("pooled", "bfloat16", remark)]
    assert rows(plain_model, ["pooled"]) == [
        eager[0], ("pooled", "float32", "no rewrite applies"),
        ("pooled", "bfloat16", "no rewrite applies"),
    ]  # fmt: skip
    monkeypatch.setattr(comparison, "has_bfloat16", lambda device: False)
    assert rows(model) == [eager[0], ("pooled", "float32", remark)]


@pytest.mark.slow
def test_an_exported_model_has_names_a_free_batch_and_the_same_numbers(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "tiny.onnx"
    report = export_onnx(tiny(), EXAMPLE, path, ["a", "b", "c"])
    assert report.inputs == {"images": ("batch", 3, 6, 6), "eps": ("batch", 4, 3, 3)}
    assert report.outputs["a"] == ("batch", 4, 5, 6)
    assert list(report.outputs) == ["a", "b", "c"]
    assert report.dynamic_batch
    assert report.max_error is not None
    assert report.max_error <= 1e-4
    assert report.file_bytes == path.stat().st_size
    assert report.nodes == len(onnx.load(path).graph.node)


@pytest.mark.slow
def test_torch_reads_its_translations_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read, versions = ONNXRegistry.from_torchlib, list[int]()

    def noted(opset_version: int) -> ONNXRegistry:
        versions.append(opset_version)
        return read(opset_version)

    monkeypatch.setattr(onnx_export, "_translations", {})
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", noted)
    graphs = [onnx_model(nn.Linear(2, 3).eval(), (torch.ones(1, 2),)).graph for _ in range(2)]
    assert versions == [onnx_export.OPSET]
    assert ONNXRegistry.from_torchlib is noted  # outside it is torch's own again
    first, second = ([node.op_type for node in graph.node] for graph in graphs)
    assert first == second != []


@pytest.mark.slow
def test_a_model_of_one_batch_size_is_exported_with_that(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")

    class Fixed(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values.reshape(3, 4) * 2

    report = export_onnx(Fixed(), torch.rand(3, 2, 2), tmp_path / "fixed.onnx")
    assert not report.dynamic_batch
    assert report.inputs == {"values": (3, 2, 2)}


@pytest.mark.slow
def test_what_cannot_be_exported_is_reported_and_not_written(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "random.onnx"
    with pytest.raises(ProfilingError, match="pass the noise"):
        export_onnx(tiny(), EXAMPLE[0], path)
    with pytest.raises(ProfilingError, match="no folder"):
        export_onnx(tiny(), EXAMPLE, tmp_path / "absent" / "tiny.onnx")
    assert not path.exists()


def test_a_model_above_2_gb_is_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = nn.Linear(1, 500_000_001, bias=False, device="meta")
    with pytest.raises(ProfilingError, match="Linear take 2,000,000,004 bytes, and an ONNX"):
        onnx_model(large, (torch.empty(1, 1, device="meta"),))
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(onnx_export, "_MOST_BYTES", 100)
    with pytest.raises(ProfilingError, match="use smaller widths"):
        export_onnx(tiny(), EXAMPLE, tmp_path / "tiny.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_file_is_not_replaced_by_an_export(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(ProfilingError, match="not a regular file"):
        export_onnx(tiny(), EXAMPLE, tmp_path)


@pytest.mark.parametrize("noise", ["--deterministic", "--sampling"])
@pytest.mark.slow
def test_the_command_exports_an_architecture(
    noise: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    from search_spaces.references import ORIGINAL
    from studies.cli.main import nas

    small = ORIGINAL.to_dict() | {"image_size": 8}
    small["encoder"]["stages"] = small["encoder"]["stages"][:1]
    small["decoder"]["stages"] = small["decoder"]["stages"][-1:]
    described, path = tmp_path / "small.json", tmp_path / "model.onnx"
    described.write_text(json.dumps(small))
    command = ["export", str(described), "--untrained", "--onnx", str(path), noise]
    nas.main(command, standalone_mode=False)
    inputs = [value.name for value in onnx.load(path).graph.input]
    assert inputs == (["images"] if noise == "--deterministic" else ["images", "eps"])
    assert "any batch" in capsys.readouterr().out
