"""What a program shows while a study runs: a terminal's panel, one area of a notebook, nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Group, RenderableType

from nas.findings import Findings
from search_spaces.errors import UserError
from studies.record.records import StudyRecord, TrialRecord
from studies.run.display import Display
from studies.run.evaluators import ProgressBar
from studies.terminal.console import Terminal, as_html, plain
from studies.terminal.progress import animated, spoken

Where = Literal["auto", "terminal", "notebook", "none"]
"""Where progress is shown; `auto` is the notebook that runs this program, or else the terminal."""

_COLUMNS = 110
"""Width of a notebook's area in columns."""

_NOTES = 5
"""Number of the latest remarks that stay in a notebook's area."""

EVERY_S = 0.5
"""Seconds between two updates of a notebook's area."""


def displays(where: Where, trials: int, epochs: int) -> tuple[Display, ProgressBar]:
    """Return the display of a study, and what makes the progress bars of its other steps.

    Raises:
        UserError: there is no such display.
    """
    if where == "none":
        return Display(Terminal(quiet=True), trials, epochs), _silent
    if where == "notebook" or (where == "auto" and _in_notebook()):
        area = NotebookDisplay(_area(), trials, epochs)
        return area, area.bar
    if where not in ("auto", "terminal"):
        raise UserError(f"progress: {where!r} is not one of auto, terminal, notebook, none")
    console = Terminal(stderr=True)
    return Display(console, trials, epochs), _bars_on(console)


class NotebookDisplay(Display):
    """One area of a notebook, replaced at each update: bar, time left, running trials, front.

    Args:
        show: Shows HTML in place of what it has shown before.
        trials: Number of architectures to evaluate, besides the references.
        epochs: Epochs of a full training.
    """

    def __init__(self, show: Callable[[str], None], trials: int, epochs: int) -> None:
        super().__init__(Terminal(quiet=True, width=_COLUMNS), trials, epochs)
        self._show = show
        self._notes: list[str] = []
        self._step_now = ""
        self._due = 0.0

    def note(self, text: str) -> None:
        """Add a remark."""
        self._notes = [*self._notes, text][-_NOTES:]
        self._update()

    def __enter__(self) -> NotebookDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._update()

    def batch(self, done: int, total: int, number: int | None = None) -> None:
        """Record the number of batches done in the current epoch."""
        super().batch(done, total, number)
        self._update(at_once=False)

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """Show a candidate whose evaluation starts."""
        super().started(trial, study)
        self._update()

    def found(self, number: int, findings: Findings) -> None:
        """Show the step that follows from the latest findings."""
        super().found(number, findings)
        self._update(at_once=False)

    def warned(self, number: int, text: str) -> None:
        """Add a warning to the remarks."""
        self.note(f"#{number}: {text}")

    def ended(self, number: int, study: StudyRecord) -> None:
        """Remove a trial, and show the front with it."""
        super().ended(number, study)
        self._update()

    @contextmanager
    def bar(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Show another step in the same area."""

        def report(done: int, total: int) -> None:
            self._step_now = f"{label}: {done:,} of {total:,}"
            self._update(at_once=False)

        self._step_now = label
        self._update()
        try:
            yield report
        finally:
            self._step_now = ""
            self._update()

    def _update(self, *, at_once: bool = True) -> None:
        """Show the present state, if the last update is not too recent."""
        now = time.monotonic()
        if at_once or now >= self._due:
            self._due = now + EVERY_S
            self._show(as_html(self._everything(), _COLUMNS))

    def _everything(self) -> RenderableType:
        lines = [self._step_now, *self._notes]
        return Group(self._render(), *(plain(text, style="dim") for text in lines if text))


def _in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


def _area() -> Callable[[str], None]:
    """Return a function that shows HTML in one new area of the notebook."""
    try:
        from IPython.display import HTML, display
    except ImportError:
        raise UserError("progress: 'notebook' needs the package ipython; install it") from None
    handle: Any = display(HTML(""), display_id=True)
    return lambda text: handle.update(HTML(text))


@contextmanager
def _silent(_label: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def _bars_on(console: Terminal) -> ProgressBar:
    @contextmanager
    def bar(label: str) -> Iterator[Callable[[int, int], None]]:
        with (animated if console.live else spoken)(console, label) as report:
            yield report

    return bar
