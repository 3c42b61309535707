"""The display of a running study: its current step, and complete numbers on any terminal."""

from __future__ import annotations

import io
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from nas.findings import Findings
from nas.objectives import DEFAULT_OBJECTIVES
from studies.record.formats import format_value
from studies.run.display import Display
from studies.terminal import console as console_module
from studies.terminal.console import Part, Terminal
from tests.fakes.floors import floors
from tests.fakes.study import EPOCHS, fake_study

EPOCH = {"epoch": 1.0, "train_loss": 1.0, "validation_loss": 1.0, "duration_s": 1.0}


def shown(
    folder: Path,
    findings: Findings | None = None,
    batches: tuple[int, int] | None = None,
    columns: int = 120,
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES,
) -> str:
    study = fake_study(folder, objectives=objectives)
    study = replace(study, config={**study.config, "limits": {}})
    console = Terminal(width=columns, file=io.StringIO())
    display = Display(console, 50, EPOCHS)
    display.started(study.trials[5], study)
    if findings:
        display.found(5, findings)
    if batches:
        display.batch(*batches)
    console.print(display._render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("findings", "batches", "step"),
    [
        (None, None, "counting"),
        (Findings("static"), None, "measuring latency"),
        (Findings("device"), None, "epoch 1/6 0%"),
        (Findings("training", history=[EPOCH]), None, "epoch 2/6 0%"),
        (Findings("training", history=[EPOCH]), (1, 4), "epoch 2/6 25%"),
        (Findings("training", history=[EPOCH] * EPOCHS), None, "epoch 6/6 100%"),
    ],
)
def test_the_step_is_reported(
    tmp_path: Path, findings: Findings | None, batches: tuple[int, int] | None, step: str
) -> None:
    assert f"#5: {step}," in shown(tmp_path, findings, batches)


def test_without_latency_training_follows_counting(tmp_path: Path) -> None:
    objectives = ("reconstruction_loss", "params")
    assert "#5: epoch 1/6 0%," in shown(tmp_path, Findings("static"), objectives=objectives)
    assert "#5: counting," in shown(tmp_path, Findings("static"), objectives=("params", "macs"))


def test_a_file_gets_one_line_per_trial(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    file = io.StringIO()
    with Display(Terminal(file=file), 50, EPOCHS) as display:
        for trial in study.trials:
            display.started(trial, study)
            display.ended(trial.number, study)
    lines = file.getvalue().splitlines()
    assert len(lines) == len(study.trials)
    for trial, line in zip(study.trials, lines, strict=True):
        assert line.startswith(f"[{study.searched}/50] {trial.name}")
        assert line.isprintable()


def test_a_file_gets_a_line_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fake_study(tmp_path)
    file, said = io.StringIO(), threading.Event()

    class Console(Terminal):
        def say(self, *parts: Part, style: str = "", wrap: bool = False) -> None:
            super().say(*parts, style=style, wrap=wrap)
            said.set()

    monkeypatch.setattr(console_module, "MINUTE_S", 0.01)
    display = Display(Console(file=file), 50, EPOCHS)
    display.started(study.trials[5], study)
    display.found(5, Findings("training", history=[EPOCH]))
    display.batch(1, 4)
    with display:
        assert said.wait(60)
    line = file.getvalue().splitlines()[0]
    assert line.startswith(f"[{study.searched}/50] ")
    assert line.endswith(" gone; #5 epoch 2/6 25%")


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "NO_COLOR"])
def test_a_file_gets_no_panel(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    study, file = fake_study(tmp_path), io.StringIO()
    with Display(Terminal(file=file), 50, EPOCHS) as display:
        display.started(study.trials[5], study)
        display.warned(5, "[x] \x1b[2J\r :smile:")
    printed = re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())
    assert printed == "#5: [x] \\x1b[2J\\r :smile:\n"


def test_a_narrow_terminal_breaks_headings_and_keeps_numbers(tmp_path: Path) -> None:
    text = shown(tmp_path, columns=45)
    study = fake_study(tmp_path)
    for trial in study.references.values():
        for objective in study.objectives:
            assert format_value(objective, trial.objectives[objective.name]) in text
    assert "hypervolume 0." in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown(tmp_path, columns=30)
    assert max(map(len, text.splitlines())) <= 45


@pytest.mark.parametrize(("mean", "mark"), [(9.0, " (front)"), (1e-3, " (has not learned)")])
def test_the_line_of_a_trial_says_whether_it_has_learned(
    tmp_path: Path, mean: float, mark: str
) -> None:
    study = replace(fake_study(tmp_path), floors=floors(mean))
    best = replace(study, floors=None).front[0]
    assert f"{best.name}{mark}: reconstruction loss" in Display(Terminal(), 50, 6)._line(
        best, study
    )
