"""Imports between the four packages only run downwards."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "search_spaces": set(),
    "profiling": set(),
    "nas": {"search_spaces", "profiling"},
    "studies": {"nas", "search_spaces", "profiling"},
}
FILES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the import out from its package"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_up(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = imported(path) & {*MAY_IMPORT, "tests", "benchmarks"}
    assert ours <= MAY_IMPORT[package] | {package}


@pytest.mark.parametrize(
    "path", [p for p in FILES if "search_spaces" in p.parts], ids=lambda path: path.name
)
def test_search_spaces_know_no_torch(path: Path) -> None:
    assert "torch" not in imported(path)
