"""Imports only run downwards: between the four packages and the folders of `studies`."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "search_spaces": set(),
    "profiling": set(),
    "nas": {"search_spaces", "profiling"},
    "studies": {"nas", "search_spaces", "profiling"},
}
"""What each package may import, besides itself."""

ROOMS = (
    {"record", "storage", "terminal"},
    {"config", "pages"},
    {"profiles", "report", "store"},
    {"run"},
    {"bench", "confirm", "on_ray"},
    {"deploy", "launch"},
    {"compress", "library", "paper"},
    {"cli"},
)
"""The rooms of `studies` from the ground up: each imports only from levels below its own."""


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the four packages below `root` by its dotted name."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def imports(path: Path) -> set[str]:
    """Return what a file imports, by dotted name; `from a import b` gives both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the import out from its package"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def graph(root: Path) -> dict[str, set[str]]:
    """Return which modules each module imports; a package is the module of its `__init__`."""
    known = modules(root)
    return {name: _needed(path, known.keys()) - {name} for name, path in known.items()}


def _needed(path: Path, known: Collection[str]) -> set[str]:
    """Return the modules that a file imports, or names from.

    `from a import b` imports the module `a.b` if there is one, else it needs `a`.
    """
    needed: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            needed |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = (f"{node.module}.{alias.name}" for alias in node.names)
            needed |= {part if part in known else str(node.module) for part in parts}
    return needed & set(known)


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of a circle of imports, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    return module.split(".")[1]


def rising(edges: Mapping[str, set[str]]) -> list[str]:
    """Return the imports of `studies` that do not run down to a lower level of rooms."""
    level = {name: height for height, names in enumerate(ROOMS) for name in names}
    return [
        f"{source} imports {target}"
        for source, targets in sorted(edges.items())
        for target in sorted(targets)
        if source.startswith("studies.") and target.startswith("studies.")
        if room(source) != room(target) and level[room(target)] >= level[room(source)]
    ]


FILES = modules(ROOT)


@pytest.mark.parametrize("name", FILES)
def test_no_import_runs_up_between_packages(name: str) -> None:
    package = name.partition(".")[0]
    ours = {one.split(".")[0] for one in imports(FILES[name])}
    assert ours & {*PACKAGES, "tests", "benchmarks"} <= PACKAGES[package] | {package}


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("search_spaces")])
def test_search_spaces_know_no_torch(name: str) -> None:
    assert "torch" not in {one.split(".")[0] for one in imports(FILES[name])}


@pytest.mark.slow
def test_no_import_runs_in_a_circle() -> None:
    assert circle(graph(ROOT)) == []


def test_every_room_of_studies_has_its_level() -> None:
    rooms = {room(name) for name in FILES if name.startswith("studies.")}
    assert rooms == set().union(*ROOMS)


@pytest.mark.slow
def test_no_import_runs_up_between_the_rooms_of_studies() -> None:
    assert rising(graph(ROOT)) == []


def borrowing(path: Path) -> set[str]:
    """Return the test modules that a file of the tests imports from."""
    return {name for name in imports(path) if re.fullmatch(r"tests\.(\w+\.)*test_\w+", name)}


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/*.py")), ids=lambda path: path.stem)
def test_nothing_is_imported_from_a_test_module(path: Path) -> None:
    assert borrowing(path) == set()


def test_an_import_from_a_test_module_is_found(tmp_path: Path) -> None:
    path = tmp_path / "test_a.py"
    path.write_text("def late():\n    from tests.test_b import thing\n")
    assert borrowing(path) == {"tests.test_b"}


def _planted(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return root


def test_a_planted_circle_is_found(tmp_path: Path) -> None:
    # The second import stands within a function: that hides a circle from Python, not from here.
    root = _planted(
        tmp_path,
        studies__store__a="from studies.store import b\n",
        studies__store__b="def late():\n    from studies.store.a import thing\n",
    )
    assert set(circle(graph(root))) == {"studies.store.a", "studies.store.b"}


def test_a_circle_through_a_package_is_found(tmp_path: Path) -> None:
    root = _planted(
        tmp_path,
        nas__search__surrogate="def late():\n    from nas.search import make_proposer\n",
    )
    (root / "nas/search/__init__.py").write_text("from nas.search import surrogate\n")
    assert set(circle(graph(root))) == {"nas.search", "nas.search.surrogate"}


def test_an_import_that_runs_up_from_a_package_is_found(tmp_path: Path) -> None:
    root = _planted(tmp_path, studies__run__b="", studies__record__c="")
    (root / "studies/record/__init__.py").write_text("from studies.run import b\n")
    assert rising(graph(root)) == ["studies.record imports studies.run.b"]


def test_a_planted_import_that_runs_up_is_found(tmp_path: Path) -> None:
    root = _planted(
        tmp_path,
        studies__record__a="from studies.run import b\n",
        studies__run__b="from studies.record import c\n",
        studies__record__c="",
    )
    assert rising(graph(root)) == ["studies.record.a imports studies.run.b"]
