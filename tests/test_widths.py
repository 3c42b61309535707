"""The tables of the commands on narrow terminals: no number without its unit, none missing."""

from __future__ import annotations

import io
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from nas.predict.accuracy import Accuracy
from profiling.environment import fingerprint
from profiling.roofline import Peaks
from search_spaces.errors import UserError
from studies.cli import predict, print_study, profile_print, study
from studies.cli.console import stdout
from studies.record.records import StudyRecord
from studies.store import store
from tests.fakes.study import fake_study
from tests.helpers.command import nas
from tests.helpers.widths import whole_at_every_width

ESCAPES = "\x1b[2J\x07\x9b1m\u202e[/red] :smile:\nnext"


@pytest.fixture(autouse=True)
def no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)


def test_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = fake_study(tmp_path)
    whole_at_every_width(lambda: print_study.print_study(record), capsys, monkeypatch)


def test_recorded_values_and_failures_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = fake_study(tmp_path, objectives=("reconstruction_loss", "params"))
    whole_at_every_width(lambda: print_study.print_study(record), capsys, monkeypatch)


@pytest.mark.parametrize("command", ["list", "effects"])
def test_lists_of_studies_and_effects(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = fake_study(tmp_path, found=60)
    monkeypatch.setattr(study, "_open", lambda root, name: record)
    monkeypatch.setattr(store, "list_studies", lambda root: ["a", "a-rather-long-name-" + "x" * 30])
    arguments = [command] if command == "list" else [command, "a"]
    whole_at_every_width(lambda: nas("study", *arguments), capsys, monkeypatch)


@pytest.mark.parametrize(
    "arguments",
    [
        ("space", "list"),
        ("space", "show", "quickstart"),
        ("space", "sample", "paper"),
        ("bench", "list"),
    ],
)
@pytest.mark.slow
def test_spaces_and_benchmarks(
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole_at_every_width(lambda: nas(*arguments), capsys, monkeypatch)


@pytest.mark.slow
def test_a_comparison_of_samplers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "bench search --table vae --samplers random,qmc --seeds 1 --trials 5 --no-figures"
    whole_at_every_width(lambda: nas(*asked.split()), capsys, monkeypatch)


def test_predictions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shares = {"convolution": 0.61, "batch_norm": 0.234, "activation": 0.1}
    row = {
        "architecture": "a/rather/long/path/of/a/model.json", "predicted_ms": 12.3, "low_ms": 11.2,
        "high_ms": 13.4, "ratio_to_original": 1.23, "shares": shares,
    }  # fmt: skip
    accuracy = Accuracy("launches only", 20, 0.93, 0.034, 0.12, 0.987, 0.912)

    def show() -> None:
        predict._print_table([row])
        stdout.table(predict._accuracy_table("All 20 by CPU time", [accuracy]))

    whole_at_every_width(show, capsys, monkeypatch)


def test_peaks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = Peaks(
        gemm_gflop_s=100, copy_gb_s=((10**6, 40), (10**8, 10)), launch_us=1,
        environment=fingerprint(),
    )  # fmt: skip
    whole_at_every_width(lambda: profile_print.print_peaks(peaks), capsys, monkeypatch)


def test_a_stream_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert nas("study", "list", "--root", "no-földer") == 0
    stream.seek(0)
    assert "no studies in no-f\\xf6lder" in stream.read()


def hostile(folder: Path) -> StudyRecord:
    """Return a study with control sequences in its texts."""
    record = fake_study(folder)
    trials = tuple(
        replace(trial, reason=ESCAPES) if trial.state == "failed" else trial
        for trial in record.trials
    )
    config = {**record.config, "space": ESCAPES}
    return replace(record, name=ESCAPES, trials=trials, config=config)


def test_control_sequences_of_a_foreign_study_are_shown_not_acted_upon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = hostile(tmp_path)
    print_study.print_study(record)
    monkeypatch.setattr(study, "_open", lambda root, name: record)
    monkeypatch.setattr(store, "list_studies", lambda root: [ESCAPES])
    assert nas("study", "list") == 0

    def refused(root: Path, name: str) -> StudyRecord:
        raise UserError(f"study {name}\nand another fault")

    monkeypatch.setattr(study, "_open", refused)
    assert nas("study", "list") == 0
    assert nas("study", "show", ESCAPES) == 2
    assert nas("study", ESCAPES) == 2
    assert nas("study", "show", "x", f"--{ESCAPES}") == 2
    printed = "".join(capsys.readouterr())
    shown = r"\x1b[2J\x07\x9b1m\u202e[/red] :smile:"
    assert printed.count(shown) >= 5
    assert not [c for c in printed if c != "\n" and not c.isprintable()]


def test_a_warning_is_one_line_of_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(root: Path, name: str) -> StudyRecord:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(ESCAPES, RuntimeWarning, stacklevel=1)
        raise UserError("a\nb\x1b")

    monkeypatch.setattr(study, "_store", warn)
    assert nas("study", "show", "s") == 2
    warned, *refused = capsys.readouterr().err.splitlines()
    assert warned == r"\x1b[2J\x07\x9b1m\u202e[/red] :smile:\nnext"
    assert refused == ["nas: a", r"nas: b\x1b"]
