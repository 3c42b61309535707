"""The documentation is correct: links resolve, commands parse, marked blocks run.

A fenced block is marked by its info string, which no renderer shows: `test` runs the block, `fails`
expects exit code 2, `file=NAME` writes the block to a file for the following commands, `output` is
the output of the commands before. The blocks of a page run in order, in one folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from search_spaces.space import SearchSpace
from studies.cli.main import nas as root_command
from studies.config.loading import load_config
from tests.helpers.command import nas

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [
    *PAGES,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *(ROOT / "benchmarks").rglob("*.md"),
    *(ROOT / "studies").rglob("*.md"),
]
SHELL = ("", "bash", "console")
PACKAGES = ("nas", "profiling", "search_spaces", "studies")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    marks: dict[str, str]
    text: str


@cache
def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    start = info = None
    for number, line in enumerate(lines):
        if line.startswith("```") and start is None:
            start, info = number + 1, line[3:]
        elif line == "```" and start is not None and info is not None:
            language, *marks = [*info.split(), ""] if not info else info.split()
            pairs = (mark.partition("=") for mark in marks if mark)
            text = "\n".join(lines[start:number]) + "\n"
            found.append(Block(page.name, start, language, {k: v for k, _, v in pairs}, text))
            start = None
    assert start is None, f"{page.name}:{start}: a fence is not closed"
    return found


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a block: continued lines are joined, lines are split at `&&`."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.removeprefix("$ ").split("&&"):
            words = shlex.split(part, comments=True)
            if words:
                yield shlex.join(words)


ALL = [block for page in PAGES for block in blocks(page)]
SHOWN = [(b, c) for b in ALL if b.language in SHELL for c in commands(b)]
INLINE = [
    (page.name, span)
    for page in PAGES
    for span in re.findall(r"`((?:nas|python -m) [^`]+)`", prose(page))
]


def named(pairs: list[tuple[Any, str]], start: str) -> list[Any]:
    return [
        pytest.param(command, id=f"{getattr(where, 'page', where)}: {command}")
        for where, command in pairs
        if command.startswith(start)
    ]


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", prose(page))
    broken = [t for pair in targets for t in pair if t and not leads_somewhere(page, t)]
    broken += [t for t in re.findall(r"`(docs/[\w/.-]+)`", prose(page)) if not (ROOT / t).exists()]
    assert broken == []


def leads_somewhere(page: Path, target: str) -> bool:
    if re.match(r"[a-z]+:", target):
        return True
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists() or not file.is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(file)


def anchors(page: Path) -> list[str]:
    """Return the anchors that GitHub derives from the headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in readme] == []


# What the pages name and how they are written


def test_architecture_names_every_file() -> None:
    text = prose(ROOT / "docs" / "architecture.md")
    named: dict[str, set[str]] = {}
    for folder, item in re.findall(r"^- `([\w/]+)/` (.*?)(?=^- |^$)", text, flags=re.M | re.S):
        named.setdefault(folder, set()).update(re.findall(r"`(\w+\.py)`", item))
    files = [path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    there: dict[str, set[str]] = {}
    for file in files:
        if file.name != "__init__.py":
            there.setdefault(file.parent.as_posix(), set()).add(file.name)
    assert {folder: names for folder, names in named.items() if names} == there


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_at_most_100_columns_wide(page: Path) -> None:
    lines = [line for line in prose(page).splitlines() if not line.startswith(("|", "![", "#"))]
    assert [line for line in lines if len(line) > 100 and can_be_broken(line)] == []


def can_be_broken(line: str) -> bool:
    """Whether a line has a space after its indentation, outside links and code."""
    return " " in re.sub(r"`[^`]*`|\]\([^)]*\)", "", line).strip().removeprefix("- ")


# Commands, parsed


@pytest.mark.parametrize("command", named(SHOWN, "nas "))
def test_commands_shown_are_commands(command: str, tmp_path: Path) -> None:
    parse(root_command, shlex.split(command)[1:])


@pytest.mark.parametrize("command", named(list(INLINE), "nas "))
def test_commands_mentioned_are_commands(command: str) -> None:
    words = re.sub(r"\bN\b", "1", command).split()[1:]
    parse(root_command, words, whole=False)


def parse(command: click.Command, words: list[str], whole: bool = True) -> None:
    """Parse a command line without running it."""
    context: click.Context | None = None
    while True:
        try:
            context = command.make_context(command.name, list(words), parent=context)
        except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
            assert not whole, f"incomplete: {command.name} {words}"
            return
        except click.exceptions.Exit:  # --help ends the parsing
            return
        if not isinstance(command, click.Group):
            return
        rest = context._protected_args + context.args
        name, found, words = command.resolve_command(context, rest)
        assert found is not None, name
        command = found


@pytest.mark.parametrize("command", named(SHOWN, "nas study run "))
def test_studies_shown_are_studies(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Presets, samplers, objectives, limits and settings are checked as in a real run."""
    monkeypatch.chdir(tmp_path)
    write_files()
    seen: list[object] = []

    def run_study(config: object, *_: object, **__: object) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("studies.launch.run_study", run_study)
    words = shlex.split(command)[1:]
    if needs_an_extension(words):
        pytest.skip("uses an addition of docs/extending.md")
    assert nas(*words) == 130
    assert seen


def needs_an_extension(words: list[str]) -> bool:
    return any(name in " ".join(words) for name in ("launches", "data.kind=newest"))


def write_files() -> None:
    """Write every file that a page shows."""
    for block in ALL:
        if "file" in block.marks:
            Path(block.marks["file"]).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("command", named([*SHOWN, *INLINE], "python -m "))
def test_modules_shown_have_these_options(command: str) -> None:
    module, *words = shlex.split(command)[2:]
    if module == "venv":
        return
    spec = importlib.util.find_spec(module)
    assert spec, module
    home = Path(spec.origin or "")
    files = home.parent.glob("*.py") if home.name == "__init__.py" else [home]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source] == []


# Blocks, read and run


@pytest.mark.parametrize(
    "block",
    [b for b in ALL if b.language == "yaml"],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_yaml_shown_is_yaml_and_spaces_are_spaces(block: Block, tmp_path: Path) -> None:
    data = yaml.safe_load(block.text)
    assert isinstance(data, dict)
    if "axes" in data and "name" in data and block.marks.get("file") != "faulty.yaml":
        assert SearchSpace.from_dict(data).size > 1
    if "space" in data:
        path = tmp_path / "study.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert load_config(str(path), {}).name == data["name"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if any("test" in b.marks and b.language != "diff" for b in blocks(page))
    ],
    ids=lambda page: page.name,
)
def test_marked_blocks_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "150")
    names: dict[str, Any] = {"__name__": page.stem}
    said = ""
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if "file" in block.marks:
            Path(block.marks["file"]).write_text(block.text, encoding="utf-8")
        elif "output" in block.marks:
            assert missing(block.text, said) == [], where
        elif "test" in block.marks and block.language == "python":
            exec(compile(block.text, where, "exec"), names)
        elif "test" in block.marks and block.language == "bash":
            said = ""
            for command in commands(block):
                words = shlex.split(command)
                assert words[0] == "nas", f"{where}: only nas commands are run"
                code = nas(*words[1:])
                printed = capsys.readouterr()
                said += printed.out + printed.err
                assert code == (2 if "fails" in block.marks else 0), f"{command}\n{said}"


def missing(shown: str, said: str) -> list[str]:
    """Return the shown lines that were not printed; columns are ignored, `...` is any lines."""
    known = {" ".join(line.split()) for line in said.splitlines()}
    lines = (" ".join(line.split()) for line in shown.splitlines())
    return [line for line in lines if line and line != "..." and line not in known]


# Extensions


DIFFS = [block for block in ALL if block.language == "diff"]
CONTRACTS = [
    "tests/test_vae.py::test_tables_cover_every_choice",
    "tests/test_vae.py::test_every_entry_builds_and_learns",
    "tests/test_vae.py::test_all_work_sits_in_modules_called_once",
    "tests/test_operations.py::test_every_choice_agrees_with_the_counter",
    "tests/test_known_costs.py::test_static_objectives_are_counted",
    "tests/test_profiling_backends.py::test_a_backend_computes_the_same_and_changes_nothing",
    "tests/test_datasets_contract.py::test_contract",
    "tests/test_datasets_contract.py::test_the_table_and_the_configuration_name_the_same_kinds",
]
ADDED = "preactivated or launches or export or newest or cover or same_kinds"


@pytest.mark.slow
def test_extensions_shown_fit_the_code_and_pass_its_contracts(tmp_path: Path) -> None:
    for name in (*PACKAGES, "benchmarks", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for block in DIFFS:
        apply(block.text, tmp_path)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-vv"]
    done = subprocess.run(
        [*command, "-k", ADDED, *CONTRACTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("preactivated", "launches", "export", "newest"):
        assert re.search(rf"\[.*{name}.*\] PASSED", done.stdout), f"{name}: no test ran"


def apply(diff: str, folder: Path) -> None:
    """Apply a unified diff to the files that it names; each context must occur once."""
    for part in re.split(r"^--- .+\n", diff, flags=re.M)[1:]:
        head, *hunks = re.split(r"^@@ .+ @@\n", part, flags=re.M)
        path = folder / head.strip().removeprefix("+++ b/")
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if not line.startswith("+"))
            new = "".join(line[1:] for line in lines if not line.startswith("-"))
            assert not old or text.count(old) == 1, f"{path.name}: context does not fit:\n{old}"
            text = text.replace(old, new) if old else new
        path.write_text(text, encoding="utf-8")
