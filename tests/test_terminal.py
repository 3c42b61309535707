"""Printing: data appear as they are at every width, in files and on terminals."""

from __future__ import annotations

import ast
import fcntl
import io
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest

from search_spaces.visible import visible
from studies.terminal import console as consoles
from studies.terminal.console import Terminal, each_minute
from studies.terminal.progress import animated, spoken
from studies.terminal.table import Column, Table, folded

ROOT = Path(__file__).parents[1]
WIDTHS = (40, 60, 80, 120, 200)


class Screen(io.StringIO):
    """A terminal in memory."""

    def isatty(self) -> bool:
        return True


def told(*parts: consoles.Part, width: int = 80, wrap: bool = False) -> str:
    file = io.StringIO()
    Terminal(file=file, width=width).say(*parts, wrap=wrap)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 東京 …", "plain ünïcode 東京 …"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\r\tand\x0b\x85\u2028more", r"two\nlines\r\tand\x0b\x85\u2028more"),
        ("\x9b2J", r"\x9b2J"),
        ("abc\u202ecba\u2066", r"abc\u202ecba\u2066"),
        ("not utf-8: \udcff", r"not utf-8: \udcff"),
        ("no-break\u00a0space", "no-break\u00a0space"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert told(text) == f"{shown}\n"
    assert str(Table(Column("a", text=True))) == "a"
    table = Table(Column("a", text=True), title=text)
    table.add(text)
    assert str(table).splitlines() == [shown, "a", shown]


@pytest.mark.parametrize("text", ["a[/red]b", "[bold]x[/bold]", ":smile:", "[link=x]y", r"\[x]"])
@pytest.mark.parametrize("wrap", [False, True])
def test_markup_and_emoji_codes_are_data(text: str, wrap: bool) -> None:
    assert told(text, (text, "bold"), wrap=wrap) == f"{text}{text}\n"
    table = Table(Column(text, text=True), title=text)
    table.add((text, "cyan"))
    file = io.StringIO()
    Terminal(file=file).table(table)
    assert file.getvalue().splitlines() == [text] * 3


def test_a_number_keeps_its_unit_in_wrapped_prose() -> None:
    text = "it has 782.6 M parameters at 21 % lower loss and 12.5 ms"
    for width in range(10, 60):
        lines = told(text, width=width, wrap=True).splitlines()
        assert " ".join(lines) == text
        assert max(map(len, lines)) <= width
        assert all(any(whole in line for line in lines) for whole in ("782.6 M", "21 %", "12.5 ms"))


def test_a_path_is_left_to_the_terminal_to_break() -> None:
    path = "/a folder/" + "x" * 100
    assert told(f"report: {path}", width=40) == f"report: {path}\n"


def wide_table(optional: bool) -> tuple[Table, list[str]]:
    """Return a table of one row of texts and numbers, and its cells."""
    cells = ["original*", "0.8211", "782.6 M", "32.83 k", "4.33 ms", "1.50 GB", "9.35 M", "3.1 %"]
    heads = (
        "reconstruction loss",
        "parameters",
        "MACs",
        "latency",
        "peak memory",
        "reads",
        "share",
    )
    table = Table(Column("model", text=True), *(Column(head, optional=optional) for head in heads))
    table.add(*cells)
    return table, cells


@pytest.mark.parametrize("width", [20, 30, *WIDTHS])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    table, cells = wide_table(optional=False)
    lines = [line.plain for line in table.lines(width)]
    assert max(map(len, lines)) <= width
    assert all(any(cell in line for line in lines) for cell in cells)
    for head in ("parameters", "MACs", "latency", "peak", "memory"):
        assert any(head in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_left_out_is_named(width: int) -> None:
    table, cells = wide_table(optional=True)
    text = "\n".join(line.plain for line in table.lines(width))
    mark = text.partition("… left out at this width:")[2].replace("\n", " ")
    for head, cell in zip(
        ("MACs", "latency", "peak memory", "reads", "share"), cells[3:], strict=True
    ):
        assert (cell in text) != (head in mark)
    assert bool(mark) == (width < 80)


def test_headings_break_before_texts_and_texts_before_rows() -> None:
    table = Table(Column("name", text=True), "median error")
    table.add("a name that is rather long", "12.5 ms")
    assert [line.plain for line in table.lines(40)] == [
        "name                        median error",
        "a name that is rather long       12.5 ms",
    ]
    assert [line.plain for line in table.lines(35)] == [
        "name                         median",
        "                              error",
        "a name that is rather long  12.5 ms",
    ]
    assert [line.plain for line in table.lines(25)] == [
        "name               median",
        "                    error",
        "a name that is    12.5 ms",
        "rather long",
    ]
    assert [line.plain for line in table.lines(24)] == [
        "name",
        "a name that is rather",
        "  long",
        "  median error:",
        "    12.5 ms",
    ]


@pytest.mark.parametrize("width", [8, 13, 20])
def test_folding_loses_nothing(width: int) -> None:
    for text in (
        "decoder.stages.0.block.layers.2",
        "words and words",
        "x" * 50,
        "東京" * 9,
        "  in",
    ):
        lines = folded(text, width)
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert len(lines) == 1 or all(lines)


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_a_file_gets_colours_only_if_asked_and_never_animation(
    environment: dict[str, str], colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = io.StringIO()
    console = Terminal(file=file)
    assert not console.live
    console.say("x", style="red")
    with animated(console, "measuring") as report:
        report(1, 2)
    assert ("\x1b[31mx\x1b[0m\n" in file.getvalue()) == colours
    assert not re.search(r"\r|\x1b\[\??[\d;]*[A-LN-Za-ln-z]", file.getvalue())


def test_a_terminal_gets_colours_and_animation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Terminal(file=Screen()).live
    monkeypatch.setenv("NO_COLOR", "1")
    file = Screen()
    Terminal(file=file).say("x", style="red")
    assert file.getvalue() == "x\n"
    monkeypatch.setenv("CI", "true")
    assert not Terminal(file=Screen()).live
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "dumb")
    assert not Terminal(file=Screen()).live


@pytest.mark.parametrize("columns", ["40", "200"])
def test_columns_are_followed_on_a_dumb_terminal_too(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", columns)
    assert Terminal(file=Screen()).width == int(columns)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_bar_cuts_neither_label_nor_numbers(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    file = Screen()
    label = "#123, seed 3, learning rate 0.001 [x] :smile:"
    with animated(Terminal(file=file, width=width), label) as report:
        report(12345, 40000)
    printed = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", file.getvalue())
    assert "12345/40000" in printed
    assert "…" not in printed
    assert {*label.split()} <= {*printed.split()}


def test_a_terminal_gives_its_width_to_what_is_printed_there_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 53, 0, 0))
    with os.fdopen(theirs, "w") as terminal, (tmp_path / "log").open("w") as log:
        assert Terminal(file=terminal).width == 53
        assert Terminal(file=log).width == 10_000
    os.close(ours)


@pytest.mark.parametrize("columns", ["", "0", "-5", "wide", "9" * 5000, "²"])
def test_a_senseless_width_is_passed_over(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
    assert Terminal(file=io.StringIO()).width == 10_000


def test_progress_without_a_terminal_is_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from threading import Event

    monkeypatch.setattr(consoles, "MINUTE_S", 0.01)
    file, called = io.StringIO(), Event()
    with spoken(Terminal(file=file), "measuring [x]") as report:
        report(1200, 4000)
        with each_minute(called.set):
            assert called.wait(30)
    lines = set(file.getvalue().splitlines())
    assert lines <= {"measuring [x]", "measuring [x]: 1,200 of 4,000"}


PRINTS = r"print|click\.s?echo|sys\.std(out|err)\.write|(std(out|err)|(self\.)?_?console)\.print"


def direct_prints(path: Path) -> list[str]:
    """Return where a file prints by other means than a `Terminal` or `visible`."""
    calls = (n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call))
    return [
        ast.unparse(call)
        for call in calls
        if re.fullmatch(PRINTS, ast.unparse(call.func)) and call.args
        if not ast.unparse(call.args[0]).startswith(("visible(", "json.dumps("))
    ]


FILES = sorted(
    path
    for package in ("search_spaces", "profiling", "nas", "studies")
    for path in (ROOT / package).rglob("*.py")
    if "terminal" not in path.parts
    and path.parts[-2:] != ("deploy", "run.py")  # it is shipped beside a model, and runs alone
)

FOR_PROGRAMS = {
    "click.echo((folder / f'profile.{kind}').read_text(encoding='utf-8'), nl=False)",
    "click.echo(found.model_dump_json(indent=1))",
    "click.echo(csv_text(flat[0], [row.values() for row in flat]), nl=False)",
}
"""Machine-readable output."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_everything_is_printed_through_one_door(path: Path) -> None:
    assert set(direct_prints(path)) - FOR_PROGRAMS <= {"click.echo('nas: interrupted', err=True)"}
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
        for alias in node.names
    }
    panels = {
        "display.py": {"Group", "RenderableType", "Live", "Text"},
        "live.py": {"Group", "RenderableType"},
    }
    assert imported <= panels.get(path.name, set())


def test_a_direct_print_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("print(f'{x}')\nstdout.print(x)\nprint(visible(x))\nstdout.print()\n")
    assert direct_prints(path) == ["print(f'{x}')", "stdout.print(x)"]
