"""The progress of one long task: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from search_spaces.visible import visible
from studies.terminal.console import Terminal, each_minute

Report = Callable[[int, int], None]
"""Takes the number of steps done and the total number of steps."""

_WIDE = 100
"""Width of the terminal, in columns, from which a bar is shown."""


@contextmanager
def animated(console: Terminal, label: str) -> Iterator[Report]:
    """Show a bar until the end; a narrow terminal breaks the label, not the numbers."""
    whole = Column(no_wrap=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        *([BarColumn()] if console.width >= _WIDE else []),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole.copy()),
    ]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(visible(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spoken(console: Terminal, label: str) -> Iterator[Report]:
    """Print the number of steps done as one line every ten seconds."""
    count = [""]

    def report(done: int, total: int) -> None:
        count[0] = f": {done:,} of {total:,}"

    with each_minute(lambda: console.say(f"{label}{count[0]}"), times=6):
        yield report
