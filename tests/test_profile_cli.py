"""`nas profile` as a user sees it: files, tables and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from profiling import backends, layers, roofline, sweep
from profiling.engines import as_it_is
from profiling.environment import fingerprint
from profiling.roofline import Peaks
from search_spaces.references import MODIFIED, ORIGINAL
from studies.cli import profile_print
from studies.cli.subjects import latency_config
from tests.fakes.study import fake_study
from tests.helpers.command import nas
from tests.helpers.widths import whole_at_every_width

QUICK = ("--seconds", "0.01")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for one test, and fixed peaks instead of measured ones."""
    peaks = Peaks(
        gemm_gflop_s=100, copy_gb_s=((10**6, 40), (10**8, 10)), launch_us=1,
        environment=fingerprint(),
    )  # fmt: skip
    for module in (layers, roofline, sweep):
        monkeypatch.setattr(module, "measure_peaks", lambda *_, **__: peaks)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from studies.cli.main import main\n"
        "try: main(['profile', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'optuna', 'pandas', 'plotly', 'numpy'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for command in ("model", "layer", "peaks", "trace", "backends", "explain"):
        assert command in done.stdout


@pytest.mark.slow
def test_model_prints_and_saves_one_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "model", "modified@32", "--batch", "2", *QUICK, "--top", "3") == 0
    printed = capsys.readouterr().out
    for title in ("By kind", "Encoder and decoder", "By stage", "the 3 slowest of"):
        assert title in printed
    folder = here / "nas-profiles" / "modified@32-batch2"
    frame = pd.read_csv(folder / "profile.csv")
    record = json.loads((folder / "profile.json").read_text())
    assert frame["params"].sum() == record["params"]
    assert record["macs"] == frame["macs"].sum()
    assert record["input_shapes"] == [[2, 3, 32, 32]]
    assert record["environment"]["allocator"] in {"tuned", "default", "preloaded"}
    assert f"{len(frame) - 1} layers" in printed
    assert MODIFIED.resized(32).summary in (folder / "profile.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_all_layers_and_machine_readable_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "model", "original@32", *QUICK, "--all") == 0
    printed = capsys.readouterr().out
    assert "encoder.stages.0.resampling" in printed
    assert "decoder.output.sigmoid" in printed
    assert "slowest of" not in printed
    assert nas("profile", "model", "original@32", *QUICK, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["layers"]
    assert nas("profile", "model", "original@32", *QUICK, "--format", "csv") == 0
    assert capsys.readouterr().out.startswith("path,")


@pytest.mark.slow
def test_a_trial_s_profile_goes_into_its_study(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from studies.report.report import write_report
    from studies.store.store import StudyStore

    study = fake_study(here / "nas-studies" / "s", found=2)
    write_report(study, plots=False)

    class Stored:
        def record(self) -> object:
            return study

        def fetch(self, name: str = "", only: tuple[str, ...] | None = None) -> None:
            """Everything is here."""

    monkeypatch.setattr(StudyStore, "open", lambda root, name: Stored())
    assert nas("profile", "model", "s#original", *QUICK) == 0
    printed = capsys.readouterr().out
    link = f"artefacts/{study.references['original'].digest}/profile.html"
    assert (study.folder / link).exists()
    assert "linked from:" in printed
    assert link in (study.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_file_s_profile_is_named_after_it(here: Path) -> None:
    path = here / "mine.json"
    path.write_text(ORIGINAL.resized(32).to_json())
    assert nas("profile", "model", str(path), *QUICK, "--out", "there") == 0
    assert "Layer profile of <b>mine</b>" in (here / "there" / "profile.html").read_text()


@pytest.mark.slow
def test_layer_in_words_is_swept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("conv", "in=4", "out=8", "size=8")
    swept = ("--sweep", "width=8,16", "--sweep", "batch=1,2")
    assert nas("profile", "layer", *words, *swept, *QUICK) == 0
    assert "at width 8 and" in capsys.readouterr().out
    folder = here / "nas-profiles" / "conv-in=4-out=8-size=8"
    frame = pd.read_csv(folder / "sweep.csv")
    assert list(zip(frame["width"], frame["batch"], strict=True)) == [
        (8, 1), (8, 2), (16, 1), (16, 2),
    ]  # fmt: skip
    assert len(json.loads((folder / "sweep.json").read_text())) == 4
    assert 'id="plot-time"' in (folder / "sweep.html").read_text(encoding="utf-8")


def test_layer_in_quotes_and_layer_of_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "layer", "elu in=4 size=8 batch=2", *QUICK) == 0
    assert "elu in=4 size=8 batch=2 takes" in capsys.readouterr().out
    path = ("original@32", "decoder.stages.2")
    assert nas("profile", "layer", *path, "--batch", "2", *QUICK, "--out", "x") == 0
    assert "original@32 decoder.stages.2 takes" in capsys.readouterr().out
    assert pd.read_csv("x/sweep.csv")["input_shape"][0] == "(2, 128, 8, 8)"


@pytest.mark.parametrize(("seconds", "warm_up_s"), [(4.0, 2.0), (60.0, 10.0), (5e-324, 5e-324)])
def test_half_of_the_time_at_most_is_warm_up(seconds: float, warm_up_s: float) -> None:
    config = latency_config(1, 1, seconds)
    assert (config.max_s, config.max_warmup_s) == (seconds, warm_up_s)


def test_peaks(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "peaks") == 0
    assert "100 GFLOP/s" in capsys.readouterr().out
    assert nas("profile", "peaks", "--json") == 0
    assert json.loads(capsys.readouterr().out)["gemm_gflop_s"] == 100


@pytest.mark.parametrize("flags", [(), ("--training",)])
@pytest.mark.slow
def test_trace(here: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("original@16", "--batch", "2", "--steps", "1", "--out", "t", *flags)
    assert nas("profile", "trace", *arguments) == 0
    printed = capsys.readouterr().out
    assert "tensorboard --logdir t" in printed
    assert (here / "t" / "trace.html").exists()
    assert list((here / "t").glob("*.pt.trace.json"))


@pytest.mark.slow
def test_backends_name_those_that_cannot_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("--backends", "channels_last,cuda_graph")
    assert nas("profile", "backends", "original@32", *chosen, *QUICK, "-o", "b.json") == 0
    printed = capsys.readouterr().out
    assert "channels_last" in printed
    assert torch.cuda.is_available() or "cuda_graph: finds no CUDA device" in printed
    names = {row["backend"] for row in json.loads((here / "b.json").read_text())}
    assert names == {"eager", "channels_last", "cuda_graph"}


@pytest.mark.slow
def test_backends_are_whole_at_every_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(profile_print, "print_backends", lambda *words: given.extend(words))
    chosen = ("--backends", "channels_last,cuda_graph")
    assert nas("profile", "backends", "original@32", *chosen, *QUICK) == 0
    monkeypatch.undo()
    whole_at_every_width(lambda: profile_print.print_backends(*given), capsys, monkeypatch)


MODEL, LAYER = ("profile", "model", "original@32"), ("profile", "layer")

FAULTS: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown architecture": (("profile", "model", "orignal"), "did you mean 'original'"),
    "unknown command": (("profile", "modle", "original"), "did you mean 'model'"),
    "unknown path": ((*LAYER, "original@32", "decoder.stage.2"), "decoder.stages.2"),
    "no path": ((*LAYER, "original@32"), "a path inside it"),
    "unknown kind": ((*LAYER, "dsconf", "in=3"), "did you mean 'dsconv'"),
    "missing size": ((*LAYER, "conv", "in=4", "out=4"), "also needs size="),
    "impossible size": ((*LAYER, "conv in=4 out=4 size=0"), "size=0"),
    "no room for the window": ((*LAYER, "maxpool in=4 size=1"), "cannot take"),
    "unknown axis": ((*LAYER, "elu in=4 size=8", "--sweep", "hight=3"), "'hight' is not one of"),
    "no numbers": ((*LAYER, "elu in=4 size=8", "--sweep", "batch=a"), "--sweep batch=a"),
    "axis twice": (
        (*LAYER, "elu in=4 size=8", "--sweep", "batch=1", "--sweep", "batch=2"),
        "batch is given twice",
    ),
    "too large a layer": ((*LAYER, "conv in=64 out=64 size=500000"), "smaller batch"),
    "too large a batch": ((*MODEL, "--batch", "10000000"), "smaller batch"),
    "too large a trace": (("profile", "trace", "original@32", "--batch", "10000000"), "smaller"),
    "too small to train on": (
        ("profile", "trace", "original@16", "--batch", "1", "--training"),
        "--batch 1: Expected more than 1 value per channel",
    ),
    "too large for backends": (
        ("profile", "backends", "original@32", "--batch", "10000000"),
        "smaller batch",
    ),
    "unknown device": ((*MODEL, "--device", "tpu"), "'tpu'"),
    "unknown backend": (("profile", "backends", "original@32", "--backends", "eagr"), "'eager'"),
    "missing extra": (
        ("profile", "backends", "original@32", "--backends", "openvino"),
        "needs openvino: pip install",
    ),
    "unwritable folder": ((*MODEL, "--out", "file/x"), "--out file/x: cannot be written"),
    "unwritable sweep": ((*LAYER, "elu in=4 size=8", "--out", "file/x"), "cannot be written"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_prints_one_line_and_exits_with_code_2(
    here: Path, fault: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "file").write_text("")
    absent = backends.Backend(
        "an engine", lambda device: "needs openvino: pip install it", as_it_is
    )
    monkeypatch.setitem(backends.BACKENDS, "openvino", absent)
    arguments, expected = FAULTS[fault]
    assert nas(*arguments) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert "Traceback" not in printed
    assert not (here / "nas-profiles").exists() or not list(here.rglob("*.html"))
