"""The short form of `python -m benchmarks.fuzz`: malformed inputs of every command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fuzz.cases import VALID, Case, commands, option_cases
from benchmarks.fuzz.judge import judge
from benchmarks.fuzz.scratch import Scratch


@pytest.mark.slow
def test_malformed_inputs_are_refused_in_a_few_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz", "--inputs", "150"]
    ended = subprocess.run(
        [*command, "--minutes", "10", "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    result = json.loads((tmp_path / "fuzz-0.json").read_text())
    assert result["faulty"] == [], ended.stdout
    assert (ended.returncode, result["inputs"]) == (0, 150)


def test_every_option_of_every_command_has_malformed_values() -> None:
    names = {name for name, _ in commands()}
    assert names == set(VALID)
    kinds = {case.kind for case in option_cases()}
    for name, command in commands():
        for parameter in command.params:
            spelt = max(parameter.opts, key=len)
            assert f"{name} {spelt}" in kinds


def test_a_wrong_answer_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = Scratch(tmp_path)
    scratch.work.mkdir(parents=True)
    (scratch.pristine / "work").mkdir(parents=True)

    def wrong(words: list[str]) -> None:
        (scratch.work / "new").write_text("x")
        print("a\n" * 4 + "b" * 601 + "\x1b[2J", file=sys.stderr)
        sys.exit(2)

    monkeypatch.setattr("studies.cli.main.main", wrong)
    verdict = judge(Case("x", ("x",)), scratch)
    assert set(verdict.faults) == {
        "control characters",
        "many lines",
        "long lines",
        "changed files",
    }
    assert not (scratch.work / "new").exists()

    def fails(words: list[str]) -> None:
        raise RuntimeError("x")

    monkeypatch.setattr("studies.cli.main.main", fails)
    assert judge(Case("x", ("x",)), scratch).faults == ("traceback",)
    monkeypatch.setattr("studies.cli.main.main", lambda words: None)
    assert judge(Case("x", ("x",)), scratch).faults == ("accepted",)
