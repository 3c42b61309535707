"""The progress of one long task: a bar on a terminal, otherwise one line a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from search_spaces.visible import visible
from studies.terminal.console import Terminal, each_minute

Report = Callable[[int, int], None]
"""Takes the number of steps done and the total number of steps."""


@contextmanager
def animated(console: Terminal, label: str) -> Iterator[Report]:
    """Show a bar that disappears at the end."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(visible(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def spoken(console: Terminal, label: str) -> Iterator[Report]:
    """Print the number of steps done as one line a minute."""
    count = [""]

    def report(done: int, total: int) -> None:
        count[0] = f": {done:,} of {total:,}"

    with each_minute(lambda: console.say(f"{label}{count[0]}")):
        yield report
