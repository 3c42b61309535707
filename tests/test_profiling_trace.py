"""Traces: the recorded operations, the nesting of spans, and the page."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.vae import VAE, build_vae
from profiling.environment import threads
from profiling.errors import ProfilingError
from profiling.memory import peak_memory_bytes
from profiling.spans import TraceStep, steps_of
from profiling.trace import Trace, read_trace, record_trace
from profiling.trace_page import family_of, operator_rows, write_trace_html
from search_spaces.references import ORIGINAL


def event(
    name: str, start: float, end: float, number: int = -1, dims: Any = (), cat: str = "cpu_op"
) -> dict[str, Any]:
    """Return one event as the profiler writes it; times in us, autograd's number, input shapes."""
    here = {"ph": "X", "pid": 1, "tid": 1, "ts": 1e12 + start, "dur": end - start}
    args = {"Sequence number": number, "Input Dims": dims}
    return {**here, "cat": cat, "name": name, "args": args}


def mark(name: str, start: float, end: float) -> dict[str, Any]:
    return event(name, start, end, cat="user_annotation")


def memory(at: float, nbytes: int) -> dict[str, Any]:
    args = {"Bytes": nbytes, "Device Type": 0}
    return {"ph": "i", "name": "[memory]", "pid": 1, "tid": 1, "ts": 1e12 + at, "args": args}


ENGINE = "autograd::engine::evaluate_function: "
EVENTS = [
    mark("ProfilerStep#0", 0, 100),
    mark("forward", 5, 45),
    mark("net", 10, 30),
    mark("net.a", 12, 20),
    event("aten::conv2d", 13, 19, 7, [[1, 3, 4, 4], [], [2]]),
    event("aten::convolution", 14, 18, 7),
    mark("net.b", 20, 29),
    event("aten::elu", 22, 28, 8),
    mark("backward", 50, 80),
    event(ENGINE + "EluBackward0", 52, 58, 8),
    event("aten::elu_backward", 53, 57),
    event(ENGINE + "ConvolutionBackward0", 60, 66, 7),
    event(ENGINE + "torch::autograd::AccumulateGrad", 67, 69),
    memory(15, 400),
    memory(23, 100),
    memory(54, 50),
    memory(70, -400),
    memory(120, 9),
]


def spans(step: TraceStep) -> dict[tuple[str, float], Any]:
    return {(span.name, span.start_us): span for span in step.spans}


def test_spans_nest_and_self_times_add_up() -> None:
    (step,) = steps_of(EVENTS, on_cuda=False)
    found = spans(step)
    assert found["ProfilerStep#0", 0].self_us == pytest.approx(100 - 40 - 30)
    assert found["forward", 5].kind == "phase"
    assert found["net", 10].self_us == pytest.approx(20 - 8 - 9)
    convolution = found["aten::conv2d", 13]
    assert (convolution.level, convolution.module) == (4, "net.a")
    assert convolution.self_us == pytest.approx(6 - 4)
    assert convolution.shapes == "1x3x4x4, 2"
    assert sum(span.self_us for span in step.spans) == pytest.approx(100)


def test_backward_operators_stand_under_the_module_they_differentiate() -> None:
    (step,) = steps_of(EVENTS, on_cuda=False)
    found = spans(step)
    assert found["aten::elu_backward", 53].module == "net.b"
    assert found[ENGINE + "ConvolutionBackward0", 60].module == "net.a"
    assert found[ENGINE + "torch::autograd::AccumulateGrad", 67].module == "net.a"
    # net spans both calls, its children one each; their operators are below them.
    net, first, second = found["net", 52], found["net.b", 52], found["net.a", 60]
    assert (net.level, net.duration_us) == (2, pytest.approx(69 - 52))
    assert (first.level, first.duration_us) == (3, pytest.approx(6))
    assert (second.level, second.duration_us) == (3, pytest.approx(69 - 60))
    assert found[ENGINE + "EluBackward0", 52].level == 4
    assert found["aten::elu_backward", 53].level == 5


def test_memory_is_followed_and_booked_on_who_asked_for_it() -> None:
    (step,) = steps_of(EVENTS, on_cuda=False)
    found = spans(step)
    assert step.memory == ((0.0, 0), (15.0, 400), (23.0, 500), (54.0, 550), (70.0, 150))
    assert found["aten::convolution", 14].allocated_bytes == 400
    assert found["aten::conv2d", 13].allocated_bytes == 0
    assert found["aten::elu_backward", 53].allocated_bytes == 50
    assert steps_of(EVENTS, on_cuda=True)[0].memory == ((0.0, 0),)


def test_operators_are_summed_by_name_and_by_shape() -> None:
    more = event("aten::elu", 40, 44, dims=[[5, 5]])
    (step,) = steps_of([*EVENTS, more], on_cuda=False)
    row = next(row for row in operator_rows(step) if row.name == "aten::elu")
    assert (row.calls, row.allocated_bytes) == (2, 100)
    assert row.self_us == pytest.approx(10)
    assert [part.name for part in row.by_shape] == ["", "5x5"]
    assert [part.self_us for part in row.by_shape] == pytest.approx([6, 4])


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("aten::_slow_conv2d_backward", "convolution"),
        ("aten::native_batch_norm_backward", "BatchNorm"),
        ("aten::elu_backward", "activation"),
        ("aten::cat", "concatenation"),
        ("aten::avg_pool2d", "resampling"),
        ("aten::addmm", "linear"),
        ("aten::copy_", "other operators"),
    ],
)
def test_operators_have_families(name: str, family: str) -> None:
    assert family_of(name) == family


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps gain nothing from more, and wait for each other on a busy machine."""
    with threads(1):
        yield


def tiny_vae() -> tuple[VAE, tuple[Tensor, Tensor]]:
    architecture = ORIGINAL.resized(16)
    return build_vae(architecture, seed=0), (torch.rand(2, 3, 16, 16), torch.zeros(2, 128))


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    model, example = tiny_vae()
    return record_trace(model, example, tmp_path_factory.mktemp("trace"), training=True, steps=2)


def test_a_training_step_names_every_module_and_phase(training: Trace) -> None:
    model, _ = tiny_vae()
    paths = {path for path, _ in model.named_modules() if path}
    modules = {span.name for span in training.step.spans if span.kind == "module"}
    assert modules == paths
    phases = [s.name for s in training.step.spans if s.kind == "phase" and s.level == 1]
    assert phases == ["forward", "backward", "optimiser"]
    assert len(training.steps) == 2
    assert training.path.name.endswith(".pt.trace.json")
    convolution = "decoder.output.convolution"
    found = {s.name for s in training.step.spans if s.module == convolution}
    assert {"aten::conv2d", "aten::convolution_backward"} <= found or {
        "aten::conv_transpose2d",
        "aten::convolution_backward",
    } <= found


def test_a_step_frees_what_it_allocates_and_its_peak_is_the_counted_one(training: Trace) -> None:
    model, example = tiny_vae()
    assert training.step.memory[-1][1] == 0
    counted = peak_memory_bytes(model, example, training=True)
    # The trace also sees the scratch space of kernels and the optimiser.
    assert counted * 0.95 <= training.peak_bytes <= counted * 1.6


def test_memory_of_two_linear_layers(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 2, bias=False))
    trace = record_trace(model, torch.rand(16, 4), tmp_path, steps=1)
    assert trace.setup.resident_bytes == 4 * (4 * 8 + 8 * 2 + 16 * 4)
    # The step's copy of the input, and both outputs at once.
    assert trace.peak_bytes - trace.setup.resident_bytes == 4 * (16 * 4 + 16 * 8 + 16 * 2)


@pytest.mark.slow
def test_recording_changes_nothing(tmp_path: Path) -> None:
    model, example = tiny_vae()
    model.eval()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    seen: list[tuple[int, int]] = []
    trace = record_trace(
        model,
        example[0],  # samples its own noise
        tmp_path,
        training=True,
        steps=2,
        loss=lambda outputs: outputs[0].mean(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert seen == [(1, 2), (2, 2)]
    assert trace.inflation == trace.step.duration_us / 1000 / trace.setup.plain_ms


def test_an_inference_step_is_a_forward_pass_alone(tmp_path: Path) -> None:
    trace = record_trace(nn.Sequential(nn.Linear(2, 2)), torch.rand(1, 2), tmp_path, steps=3)
    assert [s.name for s in trace.step.spans if s.kind == "phase"] == ["forward"]
    durations = sorted(step.duration_us for step in trace.steps)
    assert trace.step.duration_us == durations[1]


def test_tensorboards_plugin_reads_the_trace(training: Trace, tmp_path: Path) -> None:
    data = pytest.importorskip("torch_tb_profiler.profiler.data")
    profile = data.RunProfileData.parse("worker", "1", str(training.path), str(tmp_path))
    profile.process()
    assert profile.steps_names == ["0", "1"]
    assert "aten::convolution" in {operator.name for operator in profile.op_list_groupby_name}


def test_the_page_is_whole_small_and_escaped(tmp_path: Path) -> None:
    evil = "</script><b>bold"
    model = nn.Sequential()
    model.add_module(evil, nn.Linear(2, 2))
    trace = record_trace(model, torch.rand(3, 2), tmp_path / "<i>", training=True, steps=1)
    page = tmp_path / "trace.html"
    write_trace_html(trace, page)
    text = page.read_text()
    assert "<b>bold" not in text
    assert "<i>" not in text
    assert "http" not in text
    chart = json.loads(text.split('id="chart">')[1].split("</script>")[0])
    assert evil in chart["texts"]
    assert len(chart["spans"]) == len(trace.step.spans)
    assert chart["resident"] == trace.setup.resident_bytes
    assert "aten::addmm" in text


def test_a_large_step_is_thinned_but_keeps_its_peak(
    training: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiling.trace_page._MOST_SPANS", 200)
    monkeypatch.setattr("profiling.trace_page._MOST_POINTS", 50)
    page = tmp_path / "trace.html"
    write_trace_html(training, page)
    text = page.read_text()
    chart = json.loads(text.split('id="chart">')[1].split("</script>")[0])
    modules = sum(span.kind != "operator" for span in training.step.spans)
    assert modules <= len(chart["spans"]) < len(training.step.spans)
    assert len(chart["memory"]) <= 50
    assert max(live for _, live in chart["memory"]) == max(b for _, b in training.step.memory)
    assert "shortest operators are not drawn" in text


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ProfilingError, match="steps: 0"):
        record_trace(model, torch.rand(1, 2), tmp_path, steps=0)
    with pytest.raises(ProfilingError, match="trace: Linear fails on this example: mat1"):
        record_trace(model, torch.rand(1, 3), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ProfilingError, match="cannot be written"):
        record_trace(model, torch.rand(1, 2), tmp_path / "file", steps=1)
    with pytest.raises(ProfilingError, match="cannot be read"):
        read_trace(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text('{"traceEvents": []}')
    with pytest.raises(ProfilingError, match="not a trace of this tool"):
        read_trace(tmp_path / "other.json")
