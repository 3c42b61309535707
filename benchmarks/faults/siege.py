"""One study under fire, and what must hold after every kill and in the end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.moments import MOMENTS, Scene, gone, wait_for
from search_spaces.errors import UserError
from studies.records import StudyRecord, TrialRecord
from studies.store import StudyStore

ORPHANS_S = 20.0
"""Seconds after a driver's death within which its workers must have ended."""

RESUME_S = 300.0

Objectives = tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """A study and how it is attacked.

    Attributes:
        name: Of the study.
        storage: `journal`, or the address of another storage.
        runner: `local` or `ray`.
        workers: Processes that evaluate; 1 evaluates in the driver.
        measure: Whether latency is an objective.
    """

    name: str
    kills: int
    seed: int
    storage: str = "journal"
    runner: str = "local"
    workers: int = 2
    trials: int = 6
    epochs: int = 3
    measure: bool = True

    def command(self, root: Path) -> list[str]:
        """Return the command that runs and resumes the study."""
        names = ["reconstruction_loss", "params", *["latency_ms"] * self.measure]
        options = {
            "name": self.name,
            "root": root,
            "space": "tiny",
            "sampler": "random",
            "objectives": ",".join(names),
            "trials": self.trials,
            "epochs": self.epochs,
            "images": 60,
            "threads": 1,
            "workers": self.workers,
        }
        if self.storage != "journal":
            options["storage"] = self.storage
        if self.runner != "local":
            options["runner"] = self.runner
        fast = ["max_rounds=2", "min_rounds=2", "attempts=1", "max_warmup=2"]
        command = [sys.executable, "-m", "benchmarks.faults.driver", "study", "run", "quickstart"]
        command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return command + [word for one in fast for word in ("--set", f"latency.{one}")]


@dataclass
class Outcome:
    """What happened to a study, and what was checked."""

    plan: Plan
    hits: list[tuple[str, str]] = field(default_factory=list)
    damaged_checkpoints: int = 0
    torn_lines: int = 0
    restarts: int = 0
    longest_orphan_s: float = 0.0
    compared: int = 0
    failed: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {**vars(self), "plan": vars(self.plan)}


class Siege:
    """Attacks one study below `root` until its kills are spent or it has ended."""

    def __init__(self, plan: Plan, root: Path, golden: dict[str, float]) -> None:
        self.plan, self.root, self.golden = plan, root, golden
        self.folder = root / plan.name
        self.outcome = Outcome(plan)
        self._rng = random.Random(plan.seed)
        self._ended: dict[int, TrialRecord] = {}
        self._log = root / f"{plan.name}.log"

    def run(self) -> Outcome:
        """Attack, resume, and check; raise `AssertionError` naming what was lost."""
        process: subprocess.Popen[bytes] | None = self._start()
        while process and len(self.outcome.hits) < self.plan.kills:
            process = self._strike(process)
        finished = self._resume(process)
        assert finished == self._resume(None), f"{self.plan.name}: resuming changed what was over"
        self._check_the_end(finished)
        return self.outcome

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self.plan.command(self.root), stdout=log, stderr=log)

    def _strike(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
        """Kill once; return the process that goes on, or None when the study had ended."""
        scene = Scene(process, self.folder, self.plan.runner, self.plan.workers)
        kind = self._rng.choices(["driver", "worker", "measurer"], [5, 4, 1])[0]
        moment = self._rng.choice(list(MOMENTS))
        if not wait_for(scene, moment, self._rng, 30.0 if moment == "report" else 8.0):
            return None
        family = scene.family()
        victims = scene.victims(kind)
        if not victims:
            kind, victims = "driver", scene.victims("driver")
        _kill(self._rng.choice(victims))
        self.outcome.hits.append((kind, moment))
        if kind == "driver":
            self._bury(process, family)
        self._check_now()
        if process.poll() is None:
            return process
        self.outcome.restarts += 1
        return self._start()

    def _bury(self, process: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
        process.wait()
        orphan_s = gone(family, ORPHANS_S)
        assert orphan_s is not None, f"{self.plan.name}: workers outlive their driver"
        self.outcome.longest_orphan_s = max(self.outcome.longest_orphan_s, orphan_s)
        if self._rng.random() < 0.4:
            self._damage_a_checkpoint()
        if self._rng.random() < 0.4:
            self._tear_the_journal()

    def _damage_a_checkpoint(self) -> None:
        """Leave half of a checkpoint, as a file system may that loses power."""
        for path in sorted(self.folder.glob("artefacts/*/checkpoint.safetensors")):
            os.truncate(path, self._rng.randrange(path.stat().st_size))
            self.outcome.damaged_checkpoints += 1
            return

    def _tear_the_journal(self) -> None:
        """Leave the beginning of a line that was being written."""
        journal = self.folder / "journal.log"
        if journal.is_file() and (lines := journal.read_bytes().splitlines()):
            with journal.open("ab") as file:
                file.write(lines[-1][: self._rng.randrange(1, len(lines[-1]))])
            self.outcome.torn_lines += 1

    def _resume(self, process: subprocess.Popen[bytes] | None) -> StudyRecord:
        process = process or self._start()
        code = process.wait(RESUME_S)
        if code == 2:  # a measurer of the driver itself was hit: it said so and ended
            code = self._start().wait(RESUME_S)
        assert code == 0, f"{self.plan.name}: resuming ended with exit code {code}, see {self._log}"
        return StudyStore.open(self.root, self.plan.name).record()

    def _check_now(self) -> None:
        """Assert that nothing finished is lost or changed, and nothing is there twice."""
        try:
            record = StudyStore.open(self.root, self.plan.name).record()
        except (UserError, KeyError):  # it was killed before it had been created
            assert not self._ended, f"{self.plan.name}: the study is gone"
            return
        ended = {t.number: t for t in record.trials if t.state in ("complete", "failed")}
        for number, trial in self._ended.items():
            assert number in ended, f"{self.plan.name}: trial {number} is lost"
            assert _essence(trial) == _essence(ended[number]), f"trial {number} has changed"
        digests = Counter(trial.digest for trial in record.trials)
        assert max(digests.values(), default=1) == 1, f"{self.plan.name}: a trial counted twice"
        self._ended = ended

    def _check_the_end(self, record: StudyRecord) -> None:
        self._check_now()
        states = Counter(trial.state for trial in record.trials)
        assert not states.keys() - {"complete", "failed"}, f"{self.plan.name}: {states}"
        assert len(record.trials) == self.plan.trials + 2, f"{self.plan.name}: {states}"
        self.outcome.failed = [t.reason or "" for t in record.trials if t.state == "failed"]
        assert all("the process ended" in reason for reason in self.outcome.failed)
        for trial in record.complete:
            loss = trial.objectives["reconstruction_loss"]
            assert loss == self.golden[trial.digest], f"{trial.name}: {loss} after resuming"
            self.outcome.compared += 1
        assert "Traceback" not in self._log.read_text(), f"{self.plan.name}: see {self._log}"
        left = [*self.folder.rglob("*.part"), *self.folder.rglob("checkpoint*")]
        assert not left, f"{self.plan.name}: left behind {left}"
        assert (self.folder / "report.html").read_text().rstrip().endswith("</html>")


def undisturbed(plan: Plan, root: Path) -> dict[str, float]:
    """Run the study without a kill; return its losses by digest, to compare with exactly."""
    path = root / f"{plan.name}.json"
    if not path.is_file():
        subprocess.run(
            plan.command(root), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        record = StudyStore.open(root, plan.name).record()
        losses = {t.digest: t.objectives["reconstruction_loss"] for t in record.complete}
        path.write_text(json.dumps(losses))
    found: dict[str, float] = json.loads(path.read_text())
    return found


def _essence(trial: TrialRecord) -> tuple[Any, ...]:
    """What must never change; a latency is measured once more when a study ends."""
    exact = {name: v for name, v in trial.objectives.items() if name != "latency_ms"}
    return trial.state, trial.digest, exact, trial.history


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
