"""`--format` of every command that lists, `-` as standard output, completion, and named options."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from studies.cli.main import nas as command
from tests.fakes.runs import config, run
from tests.helpers.command import nas


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("formats") / "studies"
    for name in ("first", "second"):
        run(root, config(name=name, search={"sampler": "random", "trials": 12}))
    return root


@pytest.fixture(autouse=True)
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_STUDIES", str(root))
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NAS_CONFIG_DIR", str(tmp_path / "settings"))


LISTING = {
    "study list": ["study", "space", "objectives", "complete", "front", "hypervolume"],
    "study show first": ["model", "number", "front", "unlearned", "reconstruction_loss", "params",
                         "macs", "architecture"],
    "study effects first": ["axis", "choice", "trials", "reconstruction_loss"],
    "study best first --by params": ["model", "number", "params", "macs"],
    "study compare first second": ["what", "first", "second"],
    "space list": ["space", "pixels", "axes", "assignments", "about"],
    "space show tiny": ["path", "choices", "when"],
    "target list": [],
    "bench list": ["kind", "name", "about"],
    "data cache list": [],
}  # fmt: skip
"""Command -> its first columns; none where there is nothing to list."""


@pytest.mark.parametrize("line", LISTING)
@pytest.mark.slow
def test_a_listing_is_the_same_in_csv_and_json(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas(*line.split(), "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert nas(*line.split(), "--format", "csv") == 0
    out = capsys.readouterr().out
    names = LISTING[line]
    if not names:
        assert rows == []
        return
    assert list(rows[0])[: len(names)] == names
    table = list(csv.DictReader(io.StringIO(out)))
    assert [list(row) for row in table] == [list(row) for row in rows]
    numbers = [(r[n], t[n]) for r, t in zip(rows, table, strict=True) for n in r
               if isinstance(r[n], float)]  # fmt: skip
    assert all(float(text) == number for number, text in numbers)
    assert nas(*line.split()) == 0
    assert capsys.readouterr().out


def test_rows_of_a_study_are_its_references_and_its_front(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert nas("study", "show", "first", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in rows[:2]] == ["original", "modified"]
    assert all(row["front"] for row in rows[2:])


def test_a_dash_is_standard_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert nas("study", "export", "first", "-o", "-") == 0
    assert len(list(csv.DictReader(io.StringIO(capsys.readouterr().out)))) == 14
    assert nas("study", "export", "first", "--format", "json", "-o", "-") == 0
    assert len(json.loads(capsys.readouterr().out)) == 14
    assert nas("study", "effects", "first", "-o", "-") == 0
    assert capsys.readouterr().out.startswith("axis,choice,trials,")
    assert nas("study", "effects", "first", "--format", "json", "-o", "-") == 0
    assert json.loads(capsys.readouterr().out)[0]["axis"]
    assert nas("study", "report", "first", "-o", "-") == 0
    page = capsys.readouterr().out
    assert page.lstrip().startswith("<!doctype html>")
    assert page.endswith("</html>")
    assert not list(tmp_path.iterdir())


ELSEWHERE = [
    "study best first", "profile model original@32", "profile explain original@32 modified@32",
    "profile trace original@32", "bench search", "data preview", "deploy first",
]  # fmt: skip
"""Commands that write a folder or a picture."""


@pytest.mark.parametrize("line", ELSEWHERE)
def test_a_dash_is_refused_where_it_means_nothing(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert nas(*line.split(), "-o", "-") == 2
    assert "- (standard output) is not possible here" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "begun", "expected"),
    [
        (["study", "show"], "s", ["second"]),
        (["study", "delete"], "", ["first", "second"]),
        (["study", "run"], "qui", ["quickstart"]),
        (["study", "run"], "fir", ["first"]),
        (["study", "run", "quickstart", "--space"], "ti", ["tiny"]),
        (["study", "run", "quickstart", "--sampler"], "nsga", ["nsga2", "nsga3"]),
        (["study", "run", "quickstart", "--objectives"], "params,fl", ["params,flops"]),
        (["study", "run", "quickstart", "--backend"], "onnx", None),
        (["study", "list", "--format"], "j", ["json"]),
        (["profile", "model"], "orig", ["original"]),
        (["profile", "model"], "fir", ["first#"]),
        (["study"], "com", ["compare"]),
    ],
)
def test_names_are_completed(words: list[str], begun: str, expected: list[str] | None) -> None:
    shell = ShellComplete(command, {}, "nas", "_NAS_COMPLETE")
    found = [item.value for item in shell.get_completions(words, begun)]
    if expected is None:
        assert found
        assert all(value.startswith(begun) for value in found)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sampler", "tpee"], "--sampler: search.sampler: not one of"),
        (["--epochs", "0"], "--epochs: training.epochs: "),
        (["--set", "training.epoch=2"], "--set: training.epoch: unknown key"),
        (["--limit", "params=-5"], "--limit: limits.params: "),
        (["--limit", "prams=5"], "--limit: limits: 'prams' cannot be limited"),
        (["--objectives", "params,parms"], "--objectives: objectives: 'parms' is not one of"),
        (["--celeba", ""], "one of the arguments is empty"),
        (["--set", "data.kind=folder"], "quickstart: data: path: missing"),
    ],
)
def test_an_error_names_the_option_that_was_typed(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("study", "run", "quickstart", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"nas: {told}")
    assert "presets" not in said
