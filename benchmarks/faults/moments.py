"""When to strike and whom: signs of what a study is doing, seen from outside."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

WORKER_MARKS = {"local": "spawn_main", "ray": "ray::"}
"""What the command line of a runner's workers holds."""

Sign = Callable[[], bool]


@dataclass(frozen=True)
class Scene:
    """A running study: its process, its folder, and who its workers are."""

    process: subprocess.Popen[bytes]
    folder: Path
    runner: str
    workers: int

    def family(self) -> list[psutil.Process]:
        """Every process that came from the driver's, the driver apart."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def victims(self, kind: str) -> list[psutil.Process]:
        """The processes of a kind: `driver`, `worker` or `measurer`."""
        if kind == "driver":
            return [psutil.Process(self.process.pid)]
        marked = [one for one in self.family() if WORKER_MARKS[self.runner] in _command(one)]
        direct = [one for one in marked if _parent(one) == self.process.pid]
        # With one worker the driver evaluates, and what it has started measures for it.
        measurers = direct if self.workers == 1 else [one for one in marked if one not in direct]
        return measurers if kind == "measurer" else [one for one in direct if self.workers > 1]

    def grown(self, pattern: str) -> Sign:
        """Return a sign that a file of that pattern has appeared or changed from now on."""
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


MOMENTS: dict[str, tuple[str, float]] = {
    "any time": ("", 6.0),
    "begin": ("artefacts/*", 0.3),
    "measuring": ("artefacts/*/latency.json", 0.2),
    "training": ("artefacts/*/checkpoint.safetensors", 0.3),
    "writing a checkpoint": ("artefacts/*/.checkpoint*.part", 0.0),
    "writing weights": ("artefacts/*/.weights*.part", 0.0),
    "writing to the journal": ("journal.log.lock", 0.0),
    "telling": ("artefacts/*/reconstructions.npy", 0.1),
    "report": (".report.html.*.part", 0.0),
}
"""Moment to what appears or changes then in the study's folder, and the longest wait after that."""


def wait_for(scene: Scene, moment: str, rng: random.Random, limit_s: float) -> bool:
    """Wait for a moment; False if the study ended before. After `limit_s` any moment will do."""
    pattern, delay_s = MOMENTS[moment]
    time.sleep(rng.uniform(0, 3))  # not always the first one
    shown = scene.grown(pattern) if pattern else lambda: True
    deadline = time.monotonic() + limit_s
    while not shown() and time.monotonic() < deadline:
        if scene.process.poll() is not None:
            return False
        time.sleep(0.001)
    time.sleep(rng.uniform(0, delay_s))
    return scene.process.poll() is None


def gone(processes: list[psutil.Process], patience_s: float) -> float | None:
    """Return after how many seconds all have ended; None if some outlive the patience."""
    begun = time.monotonic()
    while time.monotonic() - begun < patience_s:
        if not any(map(_alive, processes)):
            return time.monotonic() - begun
        time.sleep(0.02)
    return None


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
