"""How many trials one driver can handle: a real study of made-up evaluations.

    python -m benchmarks.scale grow --trials 10000      time of ask, tell, record, display; memory
    python -m benchmarks.scale read                     the report and the commands at that size
    python -m benchmarks.scale saturate                 workers x length of a trial
    python -m benchmarks.scale grow read --storage postgres

`grow` continues where it was interrupted. `--storage` takes any address that `nas study run` takes,
or `postgres` for a private server, which is removed with all its data after the last part.
The results are in `docs/scale.md`.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import psutil

from benchmarks.postgres import private_postgres
from benchmarks.scale_parts import ANCHOR_MS, MadeUp, Simulated, Stopwatch
from nas.findings import Findings
from nas.predict.known_costs import known_costs, known_limits
from nas.search import make_proposer
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import StudyRecord, TrialRecord
from studies.run import search as searching
from studies.run.display import Display
from studies.run.runner import Runner
from studies.run.watcher import Watcher
from studies.store.store import StudyStore
from studies.terminal.console import Terminal

PARTS = ("ask", "tell", "record", "display")
MARKS = (100, 300, 1000, 3000, 5000, 10_000, 20_000)
WINDOW = 100
"""Number of trials before each of `MARKS` over which times are averaged."""

WORKERS, LENGTHS_S = (1, 4, 16, 64), (0.1, 1.0, 10.0)
STAGE = 100
"""Number of candidates for each number of workers and each length of a trial."""

ENVIRONMENT = {"data_fingerprint": "0" * 12, "original_latency_ms": ANCHOR_MS, "device": "cpu"}


@dataclass
class Setting:
    """The options of a study that is measured."""

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
        """Configuration of the study."""
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


class Timed(Watcher):
    """A watcher that passes everything on to a display and times it."""

    def __init__(self, display: Display, watch: Stopwatch) -> None:
        self._display: Display = watch.timing("display", display)

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """Pass it on."""
        self._display.started(trial, study)

    def found(self, number: int, findings: Findings) -> None:
        """Pass it on."""
        self._display.found(number, findings)

    def ended(self, number: int, study: StudyRecord) -> None:
        """Pass it on, then call `reached` with the study so far."""
        self._display.ended(number, study)
        self.reached(study)

    def reached(self, study: StudyRecord) -> None:
        """Do nothing; subclasses measure here, after every trial."""


class Marks(Timed):
    """A watcher that records time and memory at the numbers of trials in `MARKS`."""

    def __init__(self, display: Display, watch: Stopwatch) -> None:
        super().__init__(display, watch)
        self._watch = watch
        self.taken: dict[int, dict[str, float]] = {}

    def reached(self, study: StudyRecord) -> None:
        """Record time and memory at each mark and at the start of the window before it."""
        count = len(study.trials)
        if count in MARKS or count + WINDOW in MARKS:
            rss = psutil.Process().memory_info().rss
            now = {"all": time.perf_counter(), "cpu": time.process_time(), "mb": rss / 1e6}
            self.taken[count] = {**self._watch.spent_s, **now}
        if count in MARKS and count - WINDOW in self.taken:
            print(_row(count, self.taken[count - WINDOW], self.taken[count]), flush=True)


class Stages(Timed):
    """A watcher that changes the number of workers and the length of trials, stage by stage.

    A stage is timed only after the trials of the previous stage have ended.
    """

    def __init__(self, display: Display, watch: Stopwatch, crew: Simulated, first: int) -> None:
        super().__init__(display, watch)
        self._crew, self._next = crew, first
        self._left = [(workers, trial_s) for trial_s in LENGTHS_S for workers in WORKERS]
        self._now: tuple[int, float] | None = None
        self._begun: tuple[float, float, float] | None = None

    def reached(self, study: StudyRecord) -> None:
        """Start the next part when one ends: each stage is warmed up first, then timed."""
        if study.searched < self._next:
            return
        self._next = study.searched + STAGE
        times = self._crew.now(), time.perf_counter(), self._crew.busy_s
        if self._now and self._begun is None:
            self._begun = times
            return
        if self._now and self._begun:
            gone = [late - early for early, late in zip(self._begun, times, strict=True)]
            print(_stage_row(*self._now, *gone), flush=True)
        self._now, self._begun = (self._left.pop(0) if self._left else None), None
        if self._now:
            self._crew.become(*self._now)


def _stage_row(workers: int, trial_s: float, clock_s: float, real_s: float, busy_s: float) -> str:
    busy = f"{busy_s / clock_s / workers:8.0%}"
    return f"{trial_s:8g} {workers:8} {STAGE / clock_s:10.3g} {busy} {1000 * real_s / STAGE:10.1f}"


@dataclass
class Run:
    """A running study whose driver is timed."""

    setting: Setting
    watch: Stopwatch = field(default_factory=Stopwatch)

    def __post_init__(self) -> None:
        setting = self.setting
        self.display = Display(Terminal(file=io.StringIO()), setting.trials, setting.epochs)
        evaluate = MadeUp(setting.epochs)
        self.crew = Simulated(setting.workers, setting.trial_s, setting.epochs + 4, evaluate)
        self.store = StudyStore(setting.root / setting.name, setting.storage)

    def __call__(self, watcher: Watcher) -> StudyRecord:
        """Run the study to its end and return its record."""
        config, space = self.setting.config, SearchSpace.load("wide")
        begun = time.perf_counter()
        with self.store.writing():
            self.store.create(config, space, ENVIRONMENT)
            try:
                setattr(searching, "make_proposer", self._timed_proposer)  # noqa: B010 - typed as imported
                costs, limits = known_costs(config.objectives), known_limits(config.limits)
                driver = Runner(
                    *(config, space, self._timed_store(), self.crew, watcher, costs), limits=limits
                )  # with the costs and limits that `nas study run` knows in advance
            finally:
                setattr(searching, "make_proposer", make_proposer)  # noqa: B010
            self.watch.spent_s.clear()
            print(f"ready after {time.perf_counter() - begun:.1f} s", flush=True)
            return driver.run()

    def _timed_proposer(self, *arguments: object, **named: object) -> object:
        made = make_proposer(*arguments, **named)  # type: ignore[arg-type]
        return self.watch.timing("tell", made, propose="ask", register="ask")

    def _timed_store(self) -> StudyStore:
        timed = self.watch.timing("record", self.store)
        timed.trials = self.watch.timing("record", self.store.trials)
        return cast(StudyStore, timed)


def main() -> None:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["grow", "read", "saturate"])
    parser.add_argument("--root", type=Path, default=Path("scale-studies"))
    parser.add_argument("--storage", help="journal:PATH, a database URL, or postgres")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--trial-s", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--early-stopping", action="store_true")
    parser.add_argument("--name", default="scale")
    options = vars(parser.parse_args())
    parts = [{"grow": grow, "read": read, "saturate": saturate}[w] for w in options.pop("what")]
    asked = options.pop("storage")
    try:
        with private_postgres() if asked == "postgres" else nullcontext(asked) as storage:
            for part in parts:
                part(Setting(storage=storage, **options))
    except UserError as error:
        parser.error(str(error))


def grow(setting: Setting) -> None:
    """Run a study; print the driver's time per trial in ms, and its memory, at each of `MARKS`.

    `cpu` is the processor time of the driver; on a shared machine it excludes other processes.
    """
    begun = time.perf_counter()
    run = Run(setting)
    heads = (*PARTS, "rest", "all", "cpu")
    print(f"{'trials':>8}" + "".join(f"{head:>9}" for head in heads) + "      MB")
    record = run(Marks(run.display, run.watch))
    print(f"{len(record.trials)} trials in {time.perf_counter() - begun:.1f} s")


def _row(count: int, before: dict[str, float], after: dict[str, float]) -> str:
    names = (*PARTS, "all", "cpu")
    *parts, total, cpu = [1000 * (after.get(p, 0) - before.get(p, 0)) / WINDOW for p in names]
    cells = "".join(f"{ms:9.2f}" for ms in (*parts, total - sum(parts), total, cpu))
    return f"{count:8}{cells} {after['mb']:7.0f}"


def read(setting: Setting) -> None:
    """Print the time of each command that reads the study, run in a fresh process."""
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
    """Grow a study to `trials`; then print the share of time that workers evaluate, by stage."""
    parts = 2 * len(LENGTHS_S) * len(WORKERS) + 1
    run = Run(replace(setting, trials=setting.trials + parts * (STAGE + 1)))
    print(f"after {setting.trials} trials, {STAGE} trials each")
    print(f"{'trial s':>8} {'workers':>8} {'trials/s':>10} {'busy':>8} {'driver ms':>10}")
    run(Stages(run.display, run.watch, run.crew, setting.trials))


if __name__ == "__main__":
    main()
