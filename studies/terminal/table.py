"""Tables that fit any width: nothing in them is cut, numbers and their units stay together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len, chop_cells
from rich.text import Text

from search_spaces.visible import visible

Pair = tuple[str, str]
"""A text with its style."""

Cell = str | Pair

_GAP = 2
"""Spaces between two columns."""

_LEGIBLE, _LEAST = 36, 16
"""Widths to which a column of texts may shrink: while optional columns are left, and at last."""

TIED = "\ue000"
"""Stands for the space between a number and its unit while lines are broken.

A private character, which `visible` lets no text contain.
"""

_BREAKS = " ./,"
"""Where a long text is broken, if possible: before one of these, the first one first."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: Its heading.
        text: Whether it holds texts: left-aligned, and folded where space is short. Numbers are
            right-aligned and never folded.
        optional: Whether a narrow terminal leaves it out; the last one first. A line below the
            table names what is left out.
        style: Style of its cells.
    """

    head: str
    text: bool = False
    optional: bool = False
    style: str = ""


class Table:
    """Rows of cells below headings.

    Where the columns do not fit, headings are broken between words, then texts are folded, then
    optional columns are left out and named below, and at last each row becomes a block of lines
    `heading: value`.
    """

    def __init__(self, *columns: Column | str, title: str = "") -> None:
        self._columns = [Column(c) if isinstance(c, str) else c for c in columns]
        self._title = visible(title)
        self._rows: list[tuple[list[Pair], str]] = []

    def add(self, *cells: Cell, style: str = "") -> None:
        """Add a row; missing cells at its end stay empty."""
        pairs = [(cell, "") if isinstance(cell, str) else cell for cell in cells]
        pairs += [("", "")] * (len(self._columns) - len(pairs))
        self._rows.append(([(visible(text), own) for text, own in pairs], style))

    def __str__(self) -> str:
        """Return the table at its full width, without styles."""
        return "\n".join(line.plain for line in self.lines(sys.maxsize))

    def lines(self, width: int) -> list[Text]:
        """Return the lines of the table in the form that fits into `width` columns."""
        title = [Text(part, "bold") for part in folded(self._title, width)] if self._title else []
        choices = self._choices()
        for shown, least in [*((shown, _LEGIBLE) for shown in choices), (choices[-1], _LEAST)]:
            if widths := self._widths(shown, width, least):
                return [*title, *self._grid(shown, widths), *self._remark(shown, width)]
        return [*title, *self._blocks(width)]

    def _choices(self) -> list[list[int]]:
        """Return the columns to try, by number: all, then without optional ones, last first."""
        optional = [n for n, column in enumerate(self._columns) if column.optional]
        choices = []
        for kept in range(len(optional), -1, -1):
            left_out = set(optional[kept:])
            choices.append([n for n in range(len(self._columns)) if n not in left_out])
        return choices

    def _widths(self, shown: Sequence[int], width: int, least: int) -> list[int] | None:
        """Return the width of each column, or None if they do not fit."""
        wanted = [max(cell_len(self._columns[n].head), self._longest(n)) for n in shown]
        found = [min(w, self._least(n, least)) for n, w in zip(shown, wanted, strict=True)]
        spare = width - sum(found) - _GAP * (len(shown) - 1)
        if spare < 0:
            return None
        while spare and found != wanted:
            lacking = [w - f for w, f in zip(wanted, found, strict=True)]
            found[lacking.index(max(lacking))] += 1
            spare -= 1
        return found

    def _longest(self, n: int) -> int:
        return max((cell_len(cells[n][0]) for cells, _ in self._rows), default=0)

    def _least(self, n: int, least: int) -> int:
        word = max(map(cell_len, self._columns[n].head.split()), default=0)
        return max(word, least if self._columns[n].text else self._longest(n))

    def _grid(self, shown: Sequence[int], widths: Sequence[int]) -> list[Text]:
        heads = [(self._columns[n].head, "") for n in shown]
        lines = self._row(shown, heads, widths, "dim") if any(head for head, _ in heads) else []
        for cells, style in self._rows:
            own = [(cells[n][0], cells[n][1] or self._columns[n].style) for n in shown]
            lines += self._row(shown, own, widths, style)
        return lines

    def _row(
        self, shown: Sequence[int], cells: Sequence[Pair], widths: Sequence[int], style: str
    ) -> list[Text]:
        parts = [folded(text, width) for (text, _), width in zip(cells, widths, strict=True)]
        lines = []
        for texts in zip_longest(*parts, fillvalue=""):
            line, gap = Text(style=style), ""
            for n, text, (_, own), width in zip(shown, texts, cells, widths, strict=True):
                space = " " * (width - cell_len(text))
                filled = text + space if self._columns[n].text else space + text
                line.append(gap).append(filled, own or None)
                gap = " " * _GAP
            line.rstrip()
            lines.append(line)
        return lines

    def _remark(self, shown: Sequence[int], width: int) -> list[Text]:
        heads = [column.head for n, column in enumerate(self._columns) if n not in shown]
        names = ", ".join(head for head in heads if head.strip())
        if not names:
            return []
        text = f"… left out at this width: {names}"
        return [Text(part, "dim") for part in folded(text, width)]

    def _blocks(self, width: int) -> list[Text]:
        """Return each row as its first cell, below the first heading, and a line per other cell."""
        head = self._columns[0].head
        lines = [Text(part, "dim") for part in folded(head, width)] if head else []
        for cells, style in self._rows:
            for n, cell in enumerate(cells):
                lines += self._block_lines(n, cell, style, width)
        return lines

    def _block_lines(self, n: int, cell: Pair, style: str, width: int) -> list[Text]:
        column, (text, own) = self._columns[n], cell
        head = column.head.strip()
        if n and not (head and text):
            return []
        value = text if column.text else text.replace(" ", TIED)
        parts = folded(f"{head}: {value}" if n else value, max(width - (4 if n else 2), 8))
        indents = ["  " * bool(n), *["  " * (1 + bool(n))] * (len(parts) - 1)]
        return [
            Text(indent, style).append(part.replace(TIED, " "), own or column.style or None)
            for indent, part in zip(indents, parts, strict=True)
        ]


def folded(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` columns, between words where possible."""
    lines = []
    while cell_len(text) > width:
        head = chop_cells(text, width)[0]
        cut = _cut(head, text[len(head) :])
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]


def _cut(head: str, rest: str) -> int:
    """Return where to break after `head` at the latest, which `rest` follows."""
    if rest.startswith(" "):
        return len(head)
    indent = len(head) - len(head.lstrip())
    for mark in _BREAKS:
        cut = (head + rest[:1]).rfind(mark)
        if cut > indent:
            return cut
    return len(head)
