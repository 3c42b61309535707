"""The tutorial notebook runs, cell by cell, and what its last lines show can be shown."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
SIZES = "IMAGES, EPOCHS, TRIALS = 300, 5, 4"
FEW = "IMAGES, EPOCHS, TRIALS = 48, 1, 1"


def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def run(cell: str, names: dict[str, Any]) -> object:
    """Run a cell as Jupyter does; return the value of its last line."""
    first, _, rest = cell.partition("\n")
    if first.startswith("%%writefile "):
        Path(first.split()[1]).write_text(rest, encoding="utf-8")
        return None
    *body, last = ast.parse(cell).body
    shown = isinstance(last, ast.Expr)
    exec(compile(ast.Module(body if shown else [*body, last], []), "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.slow
@pytest.mark.usefixtures("untrained_counts")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("NAS_STUDIES", raising=False)
    first, *others = cells()
    assert first == SIZES
    names: dict[str, Any] = {}
    try:
        shown = [run(cell, names) for cell in (FEW, *others)]
    finally:
        sys.modules.pop("digits", None)
    study = names["study"]
    assert study.objectives[0].name == "digits:read_correctly"
    assert len(study.trials) == 3
    assert names["rebuilt"].shape == (16, 32, 32, 3)
    tables = [one._repr_html_() for one in shown if hasattr(one, "_repr_html_")]
    assert sum("<table" in table for table in tables) == 3  # study, frame, layers
    assert names["ratio"] < 1


def test_a_first_study_of_ones_own_takes_25_lines() -> None:
    page = (NOTEBOOK.parent / "python.md").read_text(encoding="utf-8")
    first = re.findall(r"^```python \S+\n(.*?)^```$", page, flags=re.M | re.S)[:2]
    lines = sum(len(block.splitlines()) for block in first)
    assert lines <= 25
    assert f"these are {lines} lines" in page


def test_the_notebook_is_shown_with_its_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    outputs = [out for cell in found if cell["cell_type"] == "code" for out in cell["outputs"]]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert not any(out["output_type"] == "error" for out in outputs)
    assert NOTEBOOK.stat().st_size < 300_000
