"""When to kill which process: signs of a study's progress, observed from outside."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from sqlalchemy import Engine, text

from nas.artefacts import CHECKPOINT

Sign = Callable[[], bool]


@dataclass(frozen=True)
class Scene:
    """A running study: its drivers, its folder and its workers.

    Attributes:
        drivers: The drivers whose end has not been noticed yet.
        folder: The study's folder.
        runner: `local` or `ray`.
        workers: Processes that evaluate, per driver; with 1 the driver evaluates, except on Ray.
        database: The database of the trials, or None for a journal.
    """

    drivers: Sequence[subprocess.Popen[bytes]]
    folder: Path
    runner: str
    workers: int
    database: Engine | None = None

    @property
    def over(self) -> bool:
        """Whether all drivers have ended."""
        return all(driver.poll() is not None for driver in self.drivers)

    def victims(self, kind: str) -> list[psutil.Process]:
        """Return the running processes of a kind: `driver`, `worker` or `measurer`."""
        alive = [driver.pid for driver in self.drivers if driver.poll() is None]
        if kind == "driver":
            return [psutil.Process(pid) for pid in alive]
        members = [one for pid in alive for one in family(pid)]
        spawned = [one for one in members if "spawn_main" in _command(one)]
        if self.runner == "ray":
            workers = [one for one in members if _command(one).startswith("ray::")]
            workers = [one for one in workers if not _is_agent(_command(one))]
            return spawned if kind == "measurer" else workers
        direct = [one for one in spawned if _parent(one) in alive]
        # With one worker the driver evaluates, and the process that it has started measures.
        if self.workers == 1:
            return direct if kind == "measurer" else []
        return direct if kind == "worker" else [one for one in spawned if one not in direct]

    def sign(self, moment: str) -> Sign:
        """Return a function that says whether a moment has come since this call."""
        if moment == DECIDING:
            assert self.database is not None
            return partial(_is_deciding, self.database)
        pattern, _ = moments(self.runner, self.database is None)[moment]
        if not pattern:
            return lambda: True
        before = self._stamps(pattern)
        return lambda: bool(self._stamps(pattern) - before)

    def _stamps(self, pattern: str) -> set[tuple[str, int]]:
        found = set()
        for path in self.folder.glob(pattern):
            try:
                found.add((str(path), path.stat().st_mtime_ns))
            except OSError:
                continue
        return found


DECIDING = "deciding, in its turn"

_ANYWHERE: dict[str, tuple[str, float]] = {
    "any time": ("", 6.0),
    "begin": ("artefacts/*", 0.3),
    "measuring": ("artefacts/*/latency.json", 0.2),
    "training": (f"artefacts/*/{CHECKPOINT}", 0.3),
    "telling": ("artefacts/*/reconstructions.npy", 0.1),
    "report": (".report.html.*.part", 0.0),
}
_LOCAL = {
    "writing a checkpoint": ("artefacts/*/.checkpoint*.part", 0.0),
    "writing weights": ("artefacts/*/.weights*.part", 0.0),
}
_RAY = {
    "writing a checkpoint": ("tune/trial-*/checkpoint_*", 0.0),
    "fetching what was written": ("artefacts/.*/*", 0.0),
}
_JOURNAL = {"writing to the journal": ("journal.log.lock", 0.0)}
_DATABASE = {DECIDING: ("", 0.0)}


def moments(runner: str, journal: bool) -> dict[str, tuple[str, float]]:
    """Return for each moment the files that appear or change then, and the longest wait in s."""
    files = _RAY if runner == "ray" else _LOCAL
    return _ANYWHERE | files | (_JOURNAL if journal else _DATABASE)


def wait_for(
    scene: Scene, moment: str, delay_s: float, rng: random.Random, patience_s: float
) -> bool:
    """Wait for a moment, at most `patience_s`; return False if the study ended before it."""
    time.sleep(rng.uniform(0, patience_s / 3))  # so that it is not always the first such moment
    shown = scene.sign(moment)
    deadline = time.monotonic() + patience_s * (4 if moment == "report" else 1)
    while not shown() and time.monotonic() < deadline:
        if scene.over:
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0, min(delay_s, patience_s)))
    return not scene.over


def family(pid: int) -> list[psutil.Process]:
    """Return all descendants of a process."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


_AGENTS = (
    "ray::DashboardAgent",
    "ray::RuntimeEnvAgent",
    "agent/main.py",
    "dashboard/agent.py",
    "default_worker.py",
)
"""Ray's agents and starting workers: they outlive a driver, and the next driver ends them."""


def gone(processes: list[psutil.Process], patience_s: float) -> float | None:
    """Return the seconds until all processes have ended, or None if that exceeds `patience_s`."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        if not running(processes):
            return time.monotonic() - begun
        time.sleep(0.02)
    return None


def running(processes: list[psutil.Process], agents: bool = False) -> list[str]:
    """Return the commands of processes that have not ended; Ray's agents only with `agents`."""
    commands = [_command(one) for one in processes if _alive(one)]
    return [command for command in commands if command and (agents or not _is_agent(command))]


def _is_agent(command: str) -> bool:
    return any(mark in command for mark in _AGENTS)


def _is_deciding(database: Engine) -> bool:
    """Whether any driver holds the lock to decide."""
    asked = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted)"
    with database.connect() as connection:
        return bool(connection.execute(text(asked)).scalar())


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
