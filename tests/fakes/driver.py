"""Drivers in processes of their own, with an evaluator that takes a moment.

They are forked from one server that has imported everything, which takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.storage import locks
from studies.store import drivers
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config

BEAT_S = 0.1


class Slow(FakeEvaluator):
    """Takes `step_s` before each finding and notes in a file what it has trained."""

    def __init__(self, log: Path, step_s: float) -> None:
        super().__init__()
        self._log, self._step_s = log, step_s

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            time.sleep(self._step_s)
            if findings.step == "done":
                with self._log.open("a") as log:
                    log.write(f"{architecture.digest} {os.getpid()}\n")
            yield findings


@dataclass
class Driver:
    """A driver's process, started by `start`."""

    folder: Path
    process: BaseProcess

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send the process a signal, and wait for its end if it is one to die of."""
        assert self.process.pid is not None
        os.kill(self.process.pid, how)
        if how == signal.SIGKILL:
            self.process.join()

    def end(self, timeout_s: float = 120) -> str:
        """Wait until it has ended well, and return what it said."""
        self.process.join(timeout_s)
        said = self.folder.joinpath("said").read_text()
        assert self.process.exitcode == 0, said
        return said


def start(
    folder: Path,
    storage: str,
    name: str,
    trials: int = 6,
    step_s: float = 0.02,
    machine: str | None = None,
) -> Driver:
    """Start a driver with a folder of its own; on another `machine`, as far as it can tell."""
    own = folder / name
    own.mkdir(exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_drive, args=(own, storage, trials, step_s, machine))
    process.start()
    return Driver(own, process)


def trained(folder: Path) -> Counter[str]:
    """Count how often each architecture was trained, by its digest."""
    log = folder / "trained"
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(line.split()[0] for line in lines)


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def _drive(folder: Path, storage: str, trials: int, step_s: float, machine: str | None) -> None:
    warnings.simplefilter("ignore")
    os.dup2(os.open(folder / "said", os.O_CREAT | os.O_APPEND | os.O_WRONLY), sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server of forks ignores it
    drivers.BEAT_S, locks.STALE_S = BEAT_S, 5.0
    if machine:
        drivers._machine = lambda: machine
    asked = config(search={"sampler": "random", "trials": trials})
    space, store = SearchSpace.load("quickstart"), StudyStore(folder / "s", storage)
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        Runner(asked, space, store, Alone(Slow(folder.parent / "trained", step_s))).run()
