"""How far one driver goes: a study of made-up evaluations, run, read and reported for real.

    python -m benchmarks.scale grow --trials 10000      time of ask, tell, record, display; memory
    python -m benchmarks.scale read                     the report and the commands at that size
    python -m benchmarks.scale saturate                 workers x length of a trial

`grow` goes on where it was interrupted; `--storage` takes any address that `nas study run` takes.
The results stand in `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psutil
from rich.console import Console

from benchmarks.scale_parts import ANCHOR_MS, MadeUp, Simulated, Stopwatch
from nas.evaluate import Findings
from search_spaces.space import SearchSpace
from studies import runner
from studies.config import StudyConfig
from studies.display import Display
from studies.records import StudyRecord, TrialRecord
from studies.runner import Runner, Watcher
from studies.store import StudyStore

PARTS = ("ask", "tell", "record", "display")
MARKS = (100, 300, 1000, 3000, 5000, 10_000, 20_000)
WINDOW = 100
"""Trials before a mark over which times are averaged."""

ENVIRONMENT = {"data_fingerprint": "0" * 12, "original_latency_ms": ANCHOR_MS, "device": "cpu"}


@dataclass
class Setting:
    """What is run: where, how much of it, and for whom."""

    root: Path
    storage: str | None
    trials: int
    sampler: str = "random"
    workers: int = 1
    trial_s: float = 0.0
    epochs: int = 5
    early_stopping: bool = False
    name: str = "scale"

    @property
    def config(self) -> StudyConfig:
        """The question of the study."""
        search = {"sampler": self.sampler, "trials": self.trials}
        if self.early_stopping:
            search["early_stopping"] = {}
        return StudyConfig.model_validate(
            {
                "name": self.name,
                "space": "wide",
                "training": {"epochs": self.epochs},
                "limits": {"params": 1e7},
                "search": search,
            }
        )


class Marks(Watcher):
    """Passes all on to a display, and takes the time and the memory at some numbers of trials."""

    def __init__(self, display: Display, watch: Stopwatch) -> None:
        self._display, self._watch = display, watch
        self.taken: dict[int, dict[str, float]] = {}
        self.evaluating_s = 0.0

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """Pass it on."""
        self._watch.timed("display", self._display.started)(trial, study)

    def found(self, number: int, findings: Findings) -> None:
        """Pass it on."""
        self._watch.timed("display", self._display.found)(number, findings)

    def ended(self, number: int, study: StudyRecord) -> None:
        """Pass it on; count."""
        self._watch.timed("display", self._display.ended)(number, study)
        count = len(study.trials)
        if count in MARKS or count + WINDOW in MARKS:
            self.taken[count] = {
                **self._watch.spent_s,
                "total": time.perf_counter(),
                "mb": psutil.Process().memory_info().rss / 1e6,
            }


@dataclass
class Run:
    """A study being run, with a stopwatch on everything the driver does."""

    setting: Setting
    watch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        setting, config = self.setting, self.setting.config
        display = Display(Console(file=io.StringIO()), setting.trials, setting.epochs)
        self.marks = Marks(display, self.watch)
        evaluate = MadeUp(setting.epochs)
        self.crew = Simulated(setting.workers, setting.trial_s, setting.epochs + 3, evaluate)
        self.store = StudyStore(setting.root / config.name, setting.storage)

    def __call__(self) -> StudyRecord:
        """Run to the end."""
        config, space = self.setting.config, SearchSpace.load("wide")
        make = runner.make_proposer
        with self.store.writing():
            self.store.create(config, space, ENVIRONMENT)
            try:
                runner.make_proposer = self._timed_proposer  # type: ignore[assignment]
                driver = Runner(config, space, self._timed_store(), self.crew, self.marks)
            finally:
                runner.make_proposer = make
            self.watch.spent_s.clear()  # that was resuming
            return driver.run()

    def _timed_proposer(self, *arguments: object, **named: object) -> object:
        from nas.search import make_proposer

        made = make_proposer(*arguments, **named)  # type: ignore[arg-type]
        return self.watch.timing("tell", made, propose="ask", register="ask")

    def _timed_store(self) -> StudyStore:
        return cast(StudyStore, self.watch.timing("record", self.store))


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["grow", "read", "saturate"])
    parser.add_argument("--root", type=Path, default=Path("scale-studies"))
    parser.add_argument("--storage", help="journal:PATH or a database URL")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trial-s", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--early-stopping", action="store_true")
    parser.add_argument("--name", default="scale")
    options = vars(parser.parse_args())
    what = options.pop("what")
    {"grow": grow, "read": read, "saturate": saturate}[what](Setting(**options))


def grow(setting: Setting) -> None:
    """Run a study, and print what each trial cost at some of its sizes."""
    begun = time.perf_counter()
    run = Run(setting)
    record = run()
    print(f"{len(record.trials)} trials in {time.perf_counter() - begun:.1f} s")
    print(f"{'trials':>8}" + "".join(f"{part:>9}" for part in (*PARTS, "rest", "all")) + "   MB")
    for count in MARKS:
        before, after = run.marks.taken.get(count - WINDOW), run.marks.taken.get(count)
        if before and after:
            print(_row(count, before, after))


def _row(count: int, before: dict[str, float], after: dict[str, float]) -> str:
    spent = [1000 * (after.get(p, 0) - before.get(p, 0)) / WINDOW for p in (*PARTS, "total")]
    *parts, total = spent
    cells = "".join(f"{ms:9.2f}" for ms in (*parts, total - sum(parts), total))
    return f"{count:8}{cells} {after['mb']:7.0f}"


def read(setting: Setting) -> None:
    """Print how long the commands take that read the study, in processes of their own."""
    name, out = setting.name, str(setting.root / "out")
    commands = {
        "list": ["list"],
        "show": ["show", name],
        "export": ["export", name, "--out", f"{out}.csv"],
        "best": ["best", name, "--out", out],
        "report": ["report", name],
    }
    for label, arguments in commands.items():
        print(f"nas study {label:8} {_seconds([*arguments, '--root', str(setting.root)]):6.2f} s")
    report = setting.root / name / "report.html"
    print(f"report.html {report.stat().st_size / 1e6:10.1f} MB")


def _seconds(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "studies.cli.main", "study", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def saturate(setting: Setting) -> None:
    """Print the share of the workers' time that is spent evaluating, for workers x length."""
    raise NotImplementedError


if __name__ == "__main__":
    main()
