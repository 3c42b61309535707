"""Show a running study: progress, current front, hypervolume, remaining time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from nas.findings import Findings
from studies.record.formats import format_duration, format_value, noun
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import needs
from studies.run.watcher import Watcher
from studies.terminal.console import Terminal, each_minute, plain
from studies.terminal.table import Column, Table

_ROWS = 12
"""Members of the front that are shown."""

_WIDE = 100
"""Width of the terminal, in columns, from which a progress bar is shown."""

_BAR = 30
"""Width of the progress bar in columns."""


@dataclass
class _Running:
    """A candidate that is being evaluated."""

    trial: TrialRecord
    findings: Findings | None = None
    batches: tuple[int, int] = (0, 1)
    begun: float = field(default_factory=time.monotonic)


class Display(Watcher):
    """A live panel on a terminal; elsewhere one line per trial, and one per minute.

    Args:
        console: Where to print.
        trials: Number of architectures to evaluate, besides the references.
        epochs: Epochs of a full training.

    Attributes:
        opening: A note that is printed when the study runs, which it may be refused to, or "".
    """

    def __init__(self, console: Terminal, trials: int, epochs: int) -> None:
        self.opening = ""
        self._console, self._trials, self._epochs = console, trials, epochs
        self._study: StudyRecord | None = None
        self._running: dict[int, _Running] = {}
        self._begun = self._last_ended = time.monotonic()
        self._search_begun: float | None = None
        self._done_before = 0
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)
        self._shown = ExitStack()

    def note(self, text: str) -> None:
        """Print a line that does not concern a single trial."""
        self._console.say(text, style="dim")

    def __enter__(self) -> Display:
        if self.opening:
            self._console.say(self.opening, style="yellow")
        live = self._console.live
        self._shown.enter_context(self._live if live else each_minute(self._say_now))
        return self

    def __exit__(self, *_: object) -> None:
        self._shown.close()

    def batch(self, done: int, total: int, number: int | None = None) -> None:
        """Record the number of batches done in the current epoch."""
        number = next(iter(self._running)) if number is None else number
        self._running[number].batches = (done, max(total, 1))

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """Show a candidate whose evaluation starts."""
        if self._search_begun is None and not trial.reference:
            self._search_begun, self._done_before = time.monotonic(), study.searched
        self._study = study
        self._running[trial.number] = _Running(trial)

    def found(self, number: int, findings: Findings) -> None:
        """Show the step that follows from the latest findings."""
        self._running[number].findings, self._running[number].batches = findings, (0, 1)

    def warned(self, number: int, text: str) -> None:
        """Print a warning in one line above the panel."""
        self._console.say(f"#{number}: {text}", style="yellow")

    def ended(self, number: int, study: StudyRecord) -> None:
        """Remove a trial from the panel; without a live panel, print it in one line."""
        self._study, self._last_ended = study, time.monotonic()
        shown = self._running.pop(number, None)
        if shown and not self._live.is_started:
            self._console.say(self._line(study.trial(number), study))

    def _say_now(self) -> None:
        """Print the current steps in one line."""
        if self._study is None:
            return
        done, steps = self._study.searched, list(self._running.values())
        now = ", ".join(f"{r.trial.name} {self._step(self._study, r)}" for r in steps)
        self._console.say(f"[{done}/{self._trials}] {self._times(done)}; {now or 'no trial runs'}")

    def _line(self, trial: TrialRecord, study: StudyRecord) -> str:
        count = f"{study.searched}/{self._trials}"
        if trial.state != "complete":
            return f"[{count}] {trial.name} {trial.state}: {trial.reason}"
        values = ", ".join(
            f"{noun(o)} {format_value(o, trial.objectives[o.name])}" for o in study.objectives
        )
        unlearned = " (has not learned)" if study.unlearned(trial) else ""
        mark = " (front)" if trial in study.front else unlearned
        took = format_duration(trial.duration_s)
        return f"[{count}] {trial.name}{mark}: {values}; {took}; hypervolume {_volume(study):.4f}"

    def _render(self) -> RenderableType:
        if self._study is None:
            return Text("starting ...")
        # The terminal echoes Ctrl-C as `^C`. The empty line takes it; elsewhere it would break the
        # panel's last line, and a part of the panel would stay on the screen.
        return Group(
            self._head(self._study),
            *[self._now(running) for running in list(self._running.values())],
            _front(self._study, self._console.width),
            "",
        )

    def _head(self, study: StudyRecord) -> RenderableType:
        done = study.searched
        filled = min(_BAR, round(_BAR * done / max(self._trials, 1)))
        bar = [("━" * filled, "green"), ("━" * (_BAR - filled) + "  ", "dim")]
        return plain(
            (f"{study.name}  ", "bold"),
            *(bar if self._console.width >= _WIDE else []),
            f"{done}/{self._trials} searched  hypervolume {_volume(study):.4f}  ",
            self._times(done),
        )

    def _times(self, done: int) -> str:
        return f"{format_duration(time.monotonic() - self._begun)} gone{self._left(done)}"

    def _left(self, done: int) -> str:
        fresh = done - self._done_before
        if fresh < 1 or self._search_begun is None:
            return ""
        per_trial = (self._last_ended - self._search_begun) / fresh
        return f", about {format_duration(per_trial * (self._trials - done))} left"

    def _now(self, running: _Running) -> RenderableType:
        step = self._step(self._study, running)
        seconds, trial = format_duration(time.monotonic() - running.begun), running.trial
        return plain(f"{trial.name}: {step}, {seconds}  {trial.architecture.summary}", style="dim")

    def _step(self, study: StudyRecord | None, running: _Running) -> str:
        """Return the current step of a candidate, which follows from its findings."""
        findings = running.findings
        if study is None or findings is None:
            return "counting"
        if findings.step == "static" and needs(study, "device"):
            return "measuring latency"
        if not needs(study, "training"):
            return "counting"
        ended, (done, total) = len(findings.history), running.batches
        share = 1.0 if ended >= self._epochs else done / total
        return f"epoch {min(ended + 1, self._epochs)}/{self._epochs} {share:.0%}"


def _front(study: StudyRecord, columns: int) -> RenderableType:
    members = [trial for trial in study.front if not trial.reference]
    rows = [(trial, "cyan") for trial in study.references.values()]
    rows += [(trial, "") for trial in members[:_ROWS]]
    table = Table(Column("front", text=True), *map(noun, study.objectives))
    for trial, style in rows:
        values = (format_value(o, trial.objectives[o.name]) for o in study.objectives)
        table.add(trial.name, *values, style=style)
    more = [f"and {len(members) - _ROWS} more"] if len(members) > _ROWS else []
    return Group(*table.lines(columns), *(plain(text, style="dim") for text in more))


def _volume(study: StudyRecord) -> float:
    return study.hypervolume(study.front)
