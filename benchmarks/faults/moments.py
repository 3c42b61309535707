"""When to strike and whom: signs of what a study is doing, seen from outside."""

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
    """A running study: its drivers, its folder, and who its workers are.

    Attributes:
        drivers: Those that have not been seen to end.
        folder: The study's.
        runner: `local` or `ray`.
        workers: Processes that evaluate, for each driver; 1 evaluates in the driver, but on Ray.
        database: Where the trials are, if that is a database.
    """

    drivers: Sequence[subprocess.Popen[bytes]]
    folder: Path
    runner: str
    workers: int
    database: Engine | None = None

    @property
    def over(self) -> bool:
        """Whether no driver runs any more."""
        return all(driver.poll() is not None for driver in self.drivers)

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind: `driver`, `worker` or `measurer`."""
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
        # With one worker the driver evaluates, and what it has started measures for it.
        if self.workers == 1:
            return direct if kind == "measurer" else []
        return direct if kind == "worker" else [one for one in spawned if one not in direct]

    def sign(self, moment: str) -> Sign:
        """Return a sign that a moment has come, from now on."""
        if moment == DECIDING:
            assert self.database is not None
            return partial(_has_turn, self.database)
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
    """Moment to what appears or changes then in the study's folder, and the longest wait after."""
    files = _RAY if runner == "ray" else _LOCAL
    return _ANYWHERE | files | (_JOURNAL if journal else _DATABASE)


def wait_for(
    scene: Scene, moment: str, delay_s: float, rng: random.Random, patience_s: float
) -> bool:
    """Wait for a moment; False if the study ended before. After the patience any moment will do."""
    time.sleep(rng.uniform(0, patience_s / 3))  # not always the first one
    shown = scene.sign(moment)
    deadline = time.monotonic() + patience_s * (4 if moment == "report" else 1)
    while not shown() and time.monotonic() < deadline:
        if scene.over:
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0, min(delay_s, patience_s)))
    return not scene.over


def family(pid: int) -> list[psutil.Process]:
    """Return every process that came from this one, itself apart."""
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
"""Ray's agents and its workers that still start: they outlive a driver; the next one ends them."""


def gone(processes: list[psutil.Process], patience_s: float) -> float | None:
    """Return after how many seconds all have ended; None if some outlive the patience."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        if not running(processes):
            return time.monotonic() - begun
        time.sleep(0.02)
    return None


def running(processes: list[psutil.Process], agents: bool = False) -> list[str]:
    """Return the commands of those that have not ended, Ray's agents apart unless asked for."""
    commands = [_command(one) for one in processes if _alive(one)]
    return [command for command in commands if command and (agents or not _is_agent(command))]


def _is_agent(command: str) -> bool:
    return any(mark in command for mark in _AGENTS)


def _has_turn(database: Engine) -> bool:
    """Whether any driver has its turn."""
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
