"""The layer table adds up, and the profiled model is unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from profiling import notes
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from profiling.latency import LatencyConfig
from profiling.layers import COLUMNS, OUTSIDE, LayerTable, profile_layers, stage_path
from profiling.notes import Notes, Pass, middle_half, outside_ms
from profiling.roofline import Peaks

CPU = torch.device("cpu")
PEAKS = Peaks(gemm_gflop_s=100, copy_gb_s=((10**6, 10),), launch_us=1, environment=fingerprint())
QUICK = LatencyConfig(min_rounds=8, max_rounds=8, max_warmup=2, warmup_window=1, min_sample_ms=0)


class Join(nn.Module):
    """Joins its inputs along the channels."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, 1)


class DenseLayer(nn.Module):
    """Adds the features of one convolution to those it was given."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.activation = nn.ELU()
        self.convolution = nn.Conv2d(channels, growth, 1)
        self.join = Join()

    def forward(self, features: Tensor) -> Tensor:
        new = self.convolution(self.activation(self.norm(features)))
        joined: Tensor = self.join(features, new)
        return joined


class Model(nn.Module):
    """An encoder of two dense layers, and a decoder that works outside its modules as well."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(DenseLayer(2, 3), DenseLayer(5, 3))
        self.decoder = Decoder()

    def forward(self, image: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(self.encoder(image))
        return decoded


class Decoder(nn.Module):
    """Adds its input to a depthwise convolution of it: the addition is the decoder's own work."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = features + self.depthwise(features)
        return added


@pytest.fixture(scope="module")
def table() -> LayerTable:
    config = QUICK.model_copy(update={"batch": 2})
    return profile_layers(Model(), torch.rand(1, 2, 4, 4), config, peaks=PEAKS)


@pytest.mark.slow
def test_rows_are_the_modules_that_work_in_order(table: LayerTable) -> None:
    frame = table.frame()
    names = ["norm", "activation", "convolution", "join"]
    dense = [f"encoder.{i}.{name}" for i in range(2) for name in names]
    assert list(frame["path"]) == [*dense, "decoder", "decoder.depthwise", OUTSIDE]
    assert tuple(frame.columns) == COLUMNS
    line = frame.set_index("path").loc["encoder.1.convolution"]
    assert (line["kind"], line["input_shape"]) == ("pointwise", (2, 5, 4, 4))
    assert (line["params"], line["macs"]) == (18, 2 * 16 * 5 * 3)


@pytest.mark.slow
def test_the_column_adds_up_to_the_stated_share(table: LayerTable) -> None:
    frame = table.frame()
    shares = frame["share"].iloc[:-1]
    assert shares.sum() == pytest.approx(table.explained_share)
    assert frame["share"].iloc[-1] == pytest.approx(table.outside_share)
    assert (frame["time_ms"].iloc[:-1] / table.latency.median_ms).tolist() == shares.tolist()
    assert frame["macs"].sum() == table.complexity.macs
    assert len(table.layers[0].times_ms) == len(table.latency.samples)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("kind", ["batch_norm", "activation", "pointwise", "concatenation", "other", "depthwise"]),
        ("part", ["encoder", "decoder"]),
        ("stage", ["encoder.0", "encoder.1", "decoder", "decoder.depthwise"]),
    ],
)
def test_groups_add_up_to_the_same_totals(table: LayerTable, by: str, groups: list[str]) -> None:
    frame, grouped = table.frame(), table.grouped(by)
    assert list(grouped["group"]) == [*groups, OUTSIDE]
    for column in ("time_ms", "share", "macs", "params", "launches"):
        assert grouped[column].sum() == pytest.approx(frame[column].sum())
    assert grouped["layers"].sum() == len(table.layers)


def test_groups_can_be_named_by_a_function(table: LayerTable) -> None:
    grouped = table.grouped(lambda layer: "yes" if layer.cost.macs else "no").set_index("group")
    assert grouped.loc["yes", "layers"] == 3
    assert grouped.loc["no", "macs"] == 0


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("encoder.stages.2.block.layers.0.norm", "encoder.stages.2"),
        ("encoder.stem.convolution", "encoder.stem"),
        ("decoder.output.sigmoid", "decoder.output"),
        ("reparameterise", "reparameterise"),
    ],
)
def test_a_stage_ends_at_the_first_number(table: LayerTable, path: str, stage: str) -> None:
    layer = table.layers[0]
    assert stage_path(replace(layer, cost=replace(layer.cost, path=path))) == stage


def test_rates_and_bounds_follow_from_counts_and_times(table: LayerTable) -> None:
    layer = table.layers[2]
    assert layer.gflop_s == pytest.approx(2 * layer.cost.macs / (layer.time_ms * 1e6))
    assert layer.gb_s == pytest.approx(layer.cost.bytes_moved / (layer.time_ms * 1e6))
    # Two images of 16 pixels: 192 MACs against 100 GFLOP/s, a few hundred bytes: a launch is 1 us.
    assert layer.bound == "launch"
    assert layer.limit_ms == pytest.approx(0.001)
    assert layer.attained == pytest.approx(0.001 / layer.time_ms)


def test_saved_files_hold_the_same_table(table: LayerTable, tmp_path: Path) -> None:
    table.save(tmp_path / "layers.csv")
    table.save(tmp_path / "layers.json")
    read = pd.read_csv(tmp_path / "layers.csv")
    assert list(read["path"]) == list(table.frame()["path"])
    assert read["time_ms"].tolist() == pytest.approx(table.frame()["time_ms"].tolist())
    record = json.loads((tmp_path / "layers.json").read_text())
    assert record["explained_share"] == pytest.approx(table.explained_share)
    assert [line["path"] for line in record["layers"]] == list(read["path"])
    assert record["peaks"]["gemm_gflop_s"] == 100
    assert record["input_shapes"] == [[2, 2, 4, 4]]


@pytest.mark.slow
def test_the_model_is_left_alone() -> None:
    model = Model()
    model.encoder[0].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    profile_layers(model, torch.rand(1, 2, 4, 4), QUICK, peaks=PEAKS)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.training
    assert not model.get_submodule("encoder.0.norm").training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_pass_too_large_for_memory_is_refused_unallocated() -> None:
    example = torch.empty(1, 2, 10**6, 10**6, device="meta")
    with pytest.raises(ProfilingError, match=r"needs [\d.]+ GB.*use a smaller batch"):
        profile_layers(Model(), example, QUICK, peaks=PEAKS)


def test_notes_split_time_between_a_module_and_those_inside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Start 0; the decoder runs from 1 to 12, its convolution from 3 to 8; the pass ends at 15.
    stamps = iter([0.0, 1.0, 3.0, 8.0, 12.0, 15.0])
    monkeypatch.setattr(
        notes,
        "_clock",
        lambda device, cpu_time: (lambda: next(stamps), lambda start, stop: stop - start),
    )
    taken = Notes(nn.Sequential(Decoder()), ["0", "0.depthwise"], CPU)
    taken(torch.rand(1, 8, 2, 2))
    assert taken.calls == 2
    assert taken.passes(skip=0) == [Pass(total_ms=15.0, own_ms=(11.0 - 5.0, 5.0))]
    assert taken.passes(skip=1) == []
    assert (
        taken.passes(skip=0, untimed=1, timed=2) == []
    )  # the first passes of a sample are not timed
    assert outside_ms(taken.passes(skip=0)) == 4.0


def test_notes_are_of_cpu_time_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter([0, 1_000_000, 3_000_000, 7_000_000])
    monkeypatch.setattr("profiling.notes.time.thread_time_ns", lambda: next(stamps))
    taken = Notes(nn.Sequential(nn.Identity()), ["0"], CPU, cpu_time=True)
    taken(torch.rand(1))
    assert taken.passes(skip=0) == [Pass(7.0, (2.0,))]


def test_notes_share_the_models_tensors() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    shared_copy = Notes(model, ["0"], CPU)._copy
    pairs = zip(model.state_dict().values(), shared_copy.state_dict().values(), strict=True)
    assert all(own.data_ptr() == shared.data_ptr() for own, shared in pairs)
    assert model.training


def test_the_middle_half_drops_both_ends() -> None:
    passes = [Pass(total, ()) for total in (9.0, 1.0, 5.0, 4.0, 6.0, 2.0, 8.0, 3.0)]
    assert [taken.total_ms for taken in middle_half(passes)] == [3.0, 4.0, 5.0, 6.0]
    assert middle_half(passes[:1]) == passes[:1]
