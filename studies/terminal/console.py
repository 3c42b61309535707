"""The console through which everything is printed: data appear as they are, nothing is cut."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.text import Text

from search_spaces.visible import visible
from studies.terminal.table import TIED, Table

Part = str | tuple[str, str]
"""A text, or a text with its style."""

_UNLIMITED = 10_000
"""Width, in columns, where no terminal and no `COLUMNS` limits it: in a file or a pipe."""

_UNIT = re.compile(r"(?<=\d) (?=(?:%|[mu]?s|min|h|d|[kMGT]?(?:B|FLOP)|[kMGT])(?:\W|$))")
"""The space between a number and its unit."""

MINUTE_S = 60.0


class Terminal(Console):
    """A console that prints data as data: no markup, no emoji codes, no control characters.

    Colours: `NO_COLOR` switches them off, `FORCE_COLOR` on, also in a file; otherwise a terminal
    gets them. Only a terminal that can move its cursor gets animation (`live`).
    """

    def __init__(
        self,
        *,
        stderr: bool = False,
        file: IO[str] | None = None,
        width: int | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__(
            stderr=stderr,
            file=file,
            width=1,  # rich would read the environment, and fail at some values of it
            height=1,
            quiet=quiet,
            force_jupyter=False,  # rich would show each print in an area of its own
            color_system="standard" if _forced() else "auto",
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._width, self._height = width, None

    @property
    def is_terminal(self) -> bool:
        """Whether the output goes to a terminal, whatever `FORCE_COLOR` says."""
        return not self.file.closed and self.file.isatty()

    @property
    def live(self) -> bool:
        """Whether lines may be replaced: not in files, dumb terminals and CI logs."""
        return self.is_terminal and not self.is_dumb_terminal and not _set("CI")

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines: those given, `COLUMNS`, those of the terminal, or unlimited ones."""
        columns = os.environ.get("COLUMNS", "")[:9]
        known = self._width or (int(columns) if columns.isdecimal() else 0)
        found = _terminal_size(self.file)
        width, height = known or found.width, self._height or found.height
        return ConsoleDimensions(min(width, _UNLIMITED), height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size

    def say(self, *parts: Part, style: str = "", wrap: bool = False) -> None:
        """Print one line.

        Args:
            parts: Texts, some with a style of their own.
            style: Style of the whole line.
            wrap: Break between words at the terminal's width, as prose wants it. Otherwise the
                terminal breaks the line itself, so that paths and commands can be copied.
        """
        text = plain(*parts, style=style)
        for line in self._wrapped(text) if wrap else [text]:
            self.print(line, soft_wrap=True)

    def _wrapped(self, text: Text) -> list[Text]:
        """Break a text between words, but not between a number and its unit."""
        text.plain = _UNIT.sub(TIED, text.plain)
        lines = list(text.wrap(self, self.width))
        for line in lines:
            line.plain = line.plain.replace(TIED, " ")
            line.rstrip()
        return lines

    def table(self, table: Table) -> None:
        """Print a table in the form that fits the width; no number is cut or broken."""
        for text in table.lines(self.width):
            self.print(text, soft_wrap=True)


def plain(*parts: Part, style: str = "") -> Text:
    """Return one line of text for a console, with control characters made visible."""
    text = Text(style=style)
    for part in parts:
        words, own = (part, "") if isinstance(part, str) else part
        text.append(visible(words), own or None)
    return text


def as_html(shown: RenderableType, columns: int) -> str:
    """Return what a console of that width shows as preformatted HTML, for a notebook."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=columns,
        force_terminal=True,
        force_jupyter=False,  # it would show the text a second time, in a new area
        markup=False,
    )
    console.print(shown)
    style = "line-height: normal; font-family: monospace; overflow-x: auto"
    return console.export_html(
        inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'
    )


@contextmanager
def each_minute(action: Callable[[], None], times: int = 1) -> Iterator[None]:
    """Call `action` so many times a minute, in a thread, until the body ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(MINUTE_S / times):
            with suppress(OSError):  # the reader of a pipe has gone
                action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _forced() -> bool:
    return _set("FORCE_COLOR") and not os.environ.get("NO_COLOR")


def _set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false")


def _terminal_size(file: IO[str]) -> ConsoleDimensions:
    with suppress(OSError, ValueError):  # no terminal; no file at all; closed
        found = os.get_terminal_size(file.fileno())
        if found.columns:
            return ConsoleDimensions(found.columns, found.lines)
    return ConsoleDimensions(_UNLIMITED, 25)
