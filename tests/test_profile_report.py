"""The texts and figures of a layer profile, on a table with known numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from profiling.complexity import Complexity, ModuleCost
from profiling.environment import fingerprint
from profiling.kinds import KindGroup
from profiling.latency import Latency, TimedModel
from profiling.layers import LayerTable, TimedLayer
from profiling.roofline import Peaks
from profiling.sweep import SWEEP_COLUMNS
from profiling.timing import Sample
from search_spaces.errors import UserError
from studies.cli.profile_print import print_profile, print_sweep
from studies.profiles.layers_figures import (
    layer_points,
    roofline_figure,
    stage_figure,
    sweep_figure,
    sweep_points,
    traffic_figure,
)
from studies.profiles.layers_page import write_profile, write_sweep
from studies.profiles.layers_words import (
    account,
    headline,
    layer_rows,
    sweep_headline,
    view,
    warnings,
)
from studies.record.formats import format_percent
from studies.report.report import write_report
from tests.fakes.study import fake_study
from tests.helpers.page import Page
from tests.helpers.widths import whole_at_every_width

PEAKS = Peaks(
    gemm_gflop_s=100,
    copy_gb_s=((10**6, 40.0), (10**8, 10.0)),
    launch_us=1,
    environment=fingerprint(),
)


def row(path: str, kind: KindGroup, macs: int, moved: int, launches: int = 1) -> ModuleCost:
    return ModuleCost(
        path=path,
        module="Module",
        kind=kind,
        input_shape=(1, 8, 16, 16),
        output_shape=(1, 4, 16, 16),
        params=10,
        macs=macs,
        activations=0,
        bytes_read=moved // 2,
        bytes_written=moved - moved // 2,
        launches=launches,
        calls=1,
    )


ROWS = (
    row("encoder.stages.0.convolution", "convolution", 10**9, 4 * 10**7),
    row("encoder.stages.0.concat", "concatenation", 0, 3 * 10**8),
    row("encoder.head", "other", 0, 0, launches=0),
    row("decoder.output", "convolution", 10**8, 6 * 10**7),
)


def latency(name: str, median_ms: float) -> Latency:
    subject = TimedModel(name, ((1, 3, 16, 16),), "torch.float32", 1, 1)
    samples = tuple(Sample(median_ms, median_ms, None) for _ in range(5))
    return Latency(subject, fingerprint(), samples)


def table(times_ms: tuple[float, ...] = (20, 60, 0, 10), outside_ms: float = 5) -> LayerTable:
    """A pass of 100 ms: a convolution, a concatenation, a module that does nothing, an output."""
    layers = tuple(
        TimedLayer(cost, time_ms, (time_ms,) * 5, *PEAKS.bound(2 * cost.macs, cost.bytes_moved, 1))
        for cost, time_ms in zip(ROWS, times_ms, strict=True)
    )
    return LayerTable(
        layers=layers,
        outside_ms=outside_ms,
        latency=latency("plain", 100),
        instrumented=latency("instrumented", 110),
        complexity=Complexity(40, ROWS, {"aten::cat": 1}),
        peaks=PEAKS,
    )


def test_headline_names_the_time_that_does_no_arithmetic() -> None:
    assert headline(table(), "m") == (
        "60 % of the 100 ms that `m` takes goes to 1 concatenation, with none of the arithmetic"
    )


def test_headline_names_the_slowest_kind_where_arithmetic_takes_the_time() -> None:
    # 1.1 GMACs in 85 ms are 2.2 / 0.085 = 25.9 GFLOP/s.
    assert headline(table((75, 10, 0, 10)), "m") == (
        "85 % of the 100 ms that `m` takes goes to 2 full convolutions, with 100 % of the "
        "arithmetic at 25.9 of the 100 GFLOP/s that this machine reaches"
    )


def test_account_reports_the_explained_share_and_the_cost_of_timing() -> None:
    text = account(table())
    assert "account for 90 % of the 100 ms" in text
    assert "work between them for 5.0 %" in text
    assert "1.10x as long" in text
    assert warnings(table()) == []


def test_a_table_that_does_not_add_up_says_so() -> None:
    assert "add up to 75 % of the latency" in warnings(table((20, 40, 0, 10)))[0]


def test_views_share_out_time_arithmetic_and_bytes() -> None:
    kinds = {group["group"]: group for group in view(table(), "kind")}
    assert list(kinds)[:2] == ["concatenation", "convolution"]
    assert list(kinds)[-1] == "(outside modules)"
    assert kinds["concatenation"]["bytes_share"] == pytest.approx(3 / 4)
    assert kinds["convolution"]["macs_share"] == 1
    assert kinds["convolution"]["time_ms"] == 30
    assert [group["group"] for group in view(table(), "part")][:2] == ["encoder", "decoder"]
    assert sum(group["share"] for group in view(table(), "stage")) == pytest.approx(0.95)


def test_layer_rows_scale_their_bars_to_the_slowest() -> None:
    rows = layer_rows(table())
    assert [line["path"] for line in rows] == [line.path for line in ROWS]
    assert [line["bar"] for line in rows] == pytest.approx([1 / 3, 1, 0, 1 / 6])


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0001, "< 0.1 %"), (0.051, "5.1 %"), (0.5678, "57 %"), (1.17, "117 %")],
)
def test_percent(share: float, text: str) -> None:
    assert format_percent(share) == text


def test_json_holds_every_digit() -> None:
    made = table((20 / 3, 60e-12, 0, 1 / 7))
    lines, frame = made.record()["layers"], made.frame()
    assert [line["time_ms"] for line in lines] == list(frame["time_ms"])
    assert [line["share"] for line in lines] == list(frame["share"])
    assert lines[0]["macs"] == 10**9
    assert type(lines[0]["macs"]) is int


def test_tables_are_whole_at_every_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_at_every_width(lambda: print_profile(table(), "m", None), capsys, monkeypatch)
    whole_at_every_width(lambda: print_sweep(SWEEP, "conv", []), capsys, monkeypatch)


def test_columns_that_are_left_out_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_profile(table(), "m", None)
    printed = capsys.readouterr().out
    assert "left out at this width: MACs, GFLOP/s, GB/s, output, moved, FLOP/B" in printed
    monkeypatch.setenv("COLUMNS", "200")
    print_profile(table(), "m", None)
    printed = capsys.readouterr().out
    assert "left out" not in printed
    assert "FLOP/B" in printed


def test_figures_show_each_layer_once_where_it_belongs() -> None:
    points = layer_points(table())
    assert len(points) == 3  # what launches nothing has no place
    bars = stage_figure(points)
    assert sum(sum(trace.x) for trace in bars.data) == 90
    roofs = {"1 thread": PEAKS}
    working = [trace for trace in roofline_figure(points, roofs).data if trace.mode == "markers"]
    assert [list(trace.x) for trace in working] == [pytest.approx([50, 2e8 / 6e7])]
    roof = next(trace for trace in roofline_figure(points, roofs).data if trace.mode == "lines")
    assert max(roof.y) == 100
    moving = [trace for trace in traffic_figure(points, roofs).data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in moving) == 3


def test_page_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    path = write_profile(table(), "m", tmp_path / "new" / "profile.html", "a summary")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(link.startswith(("#", "data:")) for link in page.fetched)
    assert {"plot-stages", "plot-roofline", "plot-traffic"} <= set(page.ids)
    assert "a summary" in page.text
    for cost in ROWS:
        assert cost.path in page.text
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S):
        assert not re.search(r"\b(NaN|Infinity)\b", block)


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    text = write_profile(table(), evil, tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text


def test_a_page_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_profile(table(), "m", tmp_path / "file" / "p.html")


def measured(**values: float | str | tuple[int, ...] | bool) -> dict[str, object]:
    common = {
        "layer": "conv", "width": 8, "size": 16, "threads": 1, "input_shape": (1, 8, 16, 16),
        "params": 10, "bytes_moved": 10**6, "launches": 1, "intensity": 4.0, "spread": 0.01,
        "contended": False, "gflop_s": 2.0, "gb_s": 1.0, "bound": "memory", "attained": 0.5,
    }  # fmt: skip
    found = {**common, **values}
    time_ms = found["time_ms"]
    assert isinstance(time_ms, float)
    return {**found, "low_ms": 0.9 * time_ms, "high_ms": 1.1 * time_ms}


SWEEP = pd.DataFrame(
    [
        measured(batch=batch, width=width, macs=batch * width * 1000, time_ms=batch * 0.5 * width)
        for batch in (4, 1)
        for width in (8, 16)
    ],
    columns=list(SWEEP_COLUMNS),
)


def test_sweep_headline_compares_the_ends_of_the_first_axis() -> None:
    assert sweep_headline(SWEEP, "conv", ["batch", "width"]) == (
        "`conv` takes 4.00 ms at batch 1 and 16.0 ms at batch 4 (width 8): "
        "4.00x the time for 4.00x the work"
    )
    assert "takes 16.0 ms: 2.0 GFLOP/s and 1.0 GB/s" in sweep_headline(SWEEP[:1], "conv", [])


def test_sweep_has_a_line_for_each_other_value() -> None:
    lines = sweep_figure(sweep_points(SWEEP, ["width"]), "batch").data
    assert [(line.name, list(line.x), list(line.y)) for line in lines] == [
        ("width 8", [1, 4], [4.0, 16.0]),
        ("width 16", [1, 4], [8.0, 32.0]),
    ]


@pytest.mark.parametrize("axes", [[], ["batch"], ["width", "batch"]])
def test_sweep_page(tmp_path: Path, axes: list[str]) -> None:
    rows = SWEEP if axes else SWEEP[:1]
    page = Page(
        write_sweep(rows, "conv", axes, {1: PEAKS}, tmp_path / "s.html").read_text(encoding="utf-8")
    )
    assert ("plot-time" in page.ids) == bool(axes)
    assert all(link.startswith(("#", "data:")) for link in page.fetched)


def test_a_layer_without_arithmetic_has_no_roofline(tmp_path: Path) -> None:
    idle = SWEEP.assign(macs=0, gflop_s=0.0, intensity=0.0)
    path = write_sweep(idle, "elu", ["batch", "width"], {1: PEAKS}, tmp_path / "s.html")
    assert "No layer does arithmetic that is counted" in path.read_text(encoding="utf-8")


def test_a_study_links_to_the_profiles_that_were_made(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    made = [study.front[0], study.references["original"]]
    for trial in made:
        folder = tmp_path / "artefacts" / trial.digest
        folder.mkdir(parents=True)
        (folder / "profile.html").write_text("")
    fetched = Page(write_report(study, plots=False).read_text(encoding="utf-8")).fetched
    links = {link for link in fetched if not link.startswith(("#", "data:"))}
    assert links == {f"artefacts/{trial.digest}/profile.html" for trial in made}
    for link in links:
        assert (tmp_path / link).exists()
