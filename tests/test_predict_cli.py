"""`nas profile calibrate` and `predict` as a user sees them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from nas.predict import timed as operation_bench
from nas.predict.calibration import Calibration, Measurement, Setting
from profiling.allocator import tune_allocator
from search_spaces.references import MODIFIED, ORIGINAL
from tests.helpers.command import nas
from tests.helpers.made_up_machine import fake


class FakeBench:
    """Measures by the known law of `tests.helpers.made_up_machine`, in no time."""

    def __init__(self, setting: Setting) -> None:
        tune_allocator()

    __call__ = staticmethod(fake)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(operation_bench, "OperationTimer", FakeBench)
    return tmp_path


def test_without_a_calibration_the_remedy_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "predict", "original", "--device", "cpu") == 2
    error = capsys.readouterr().err
    assert "nas profile calibrate --space wide@144 --device cpu" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_calibrate_then_predict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--space", "wide@64", "--device", "cpu", "--architectures", "60")
    assert nas("profile", "calibrate", *asked, "--minutes", "0.0001") == 2
    assert "continue with: nas profile calibrate --space wide@64" in capsys.readouterr().err
    assert nas("profile", "calibrate", *asked) == 0
    printed = capsys.readouterr().out
    assert "fitted to 40 architectures, checked on 20 others" in printed
    for name in ("predictor", "MACs only", "launches only", "Spearman"):
        assert name in printed

    saved = here / "modified.json"
    saved.write_text(MODIFIED.resized(64).to_json())
    names = ("original@64", "modified.json")
    assert nas("profile", "predict", *names, "--device", "cpu", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["architecture"] for row in rows] == list(names)
    expected = fake(MODIFIED.resized(64), "held_out").ratio
    assert rows[1]["ratio_to_original"] == pytest.approx(expected, rel=0.15)
    assert rows[1]["low_ms"] < rows[1]["predicted_ms"] < rows[1]["high_ms"]
    assert sum(rows[0]["shares"].values()) == pytest.approx(1)

    assert nas("profile", "predict", *names, "--device", "cpu", "--format", "csv") == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert float(lines[1]["predicted_ms"]) == pytest.approx(rows[1]["predicted_ms"])
    assert float(lines[0]["share_depthwise"]) == 0

    assert nas("profile", "predict", *names, "--device", "cpu") == 0
    table = capsys.readouterr().out
    assert "modified.json" in table
    assert f"{rows[1]['predicted_ms']:.1f} ms" in table

    # At 144 pixels nothing was measured.
    assert nas("profile", "predict", "original", "--device", "cpu") == 2
    assert "first calibrate this machine with: nas profile calibrate" in capsys.readouterr().err


def test_a_known_environment_that_changed_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    tune_allocator()
    calibration = Calibration.here(Setting())
    calibration.environment = calibration.environment.model_copy(update={"cores": 999})
    calibration.path = calibration.path.with_name(calibration.path.stem + "0.jsonl")
    calibration.append(Measurement(ORIGINAL, "fitted", ((1.0, 1.0),)))
    assert nas("profile", "predict", "original", "--device", "cpu") == 2
    assert "cores: 999 against" in capsys.readouterr().err


def test_help_names_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("profile", "--help") == 0
    printed = capsys.readouterr().out
    assert "calibrate" in printed
    assert "predict" in printed


@pytest.mark.parametrize("command", [["predict", "original@32"], ["explain", "original@32"]])
def test_int8_needs_images(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--backend", "onnxruntime", "--precision", "int8"]
    more = ["--against", "eager"] if command[0] == "explain" else []
    assert nas("profile", *command, *given, *more) == 2
    assert "--precision int8: it takes the ranges of values from images" in capsys.readouterr().err
