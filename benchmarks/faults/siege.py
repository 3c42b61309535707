"""One study whose processes are killed, and the checks after every kill and at the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, create_engine

from benchmarks.faults.moments import Scene, family, gone, moments, running, wait_for
from benchmarks.postgres import Server
from nas.artefacts import CHECKPOINT
from nas.objectives import TRAINED_OBJECTIVE
from search_spaces.errors import UserError
from studies.record.records import StudyRecord, TrialRecord
from studies.storage.addresses import absolute, masked
from studies.store.store import StudyStore

ORPHANS_S = 20.0
"""Seconds after a driver's death within which its workers must have ended."""

RESUME_S = 300.0

_WEIGHTS = {"driver": 10, "worker": 8, "measurer": 2, "server": 3}
"""How often each kind is chosen; where there is no process of a kind, a driver is killed."""


@dataclass(frozen=True)
class Plan:
    """A study, and how its processes are killed.

    Attributes:
        name: Name of the study.
        storage: `journal`, or the address of another storage.
        runner: `local` or `ray`.
        workers: Processes that evaluate; with 1 the driver evaluates, except on Ray.
        drivers: Processes that run the study at the same time; several need a database.
        measure: Whether latency is an objective.
        patience_s: Longest wait for a moment; for the report it is four times longer.
    """

    name: str
    kills: int
    seed: int
    storage: str = "journal"
    runner: str = "local"
    workers: int = 2
    drivers: int = 1
    trials: int = 6
    epochs: int = 3
    measure: bool = True
    patience_s: float = 8.0

    def command(self, root: Path) -> list[str]:
        """Return the command that runs and resumes the study."""
        names = [TRAINED_OBJECTIVE, "params", *["latency_ms"] * self.measure]
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
        if not self.journal:
            options["storage"] = self.storage
        if self.runner != "local":
            options["runner"] = self.runner
        fast = ["max_rounds=2", "min_rounds=2", "attempts=1", "max_warmup=2"]
        command = [sys.executable, "-m", "benchmarks.faults.driver", "study", "run", "quickstart"]
        command += [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return command + [word for one in fast for word in ("--set", f"latency.{one}")]

    def store(self, root: Path) -> StudyStore:
        """Return the study's store, for reading."""
        return StudyStore(root / self.name, None if self.journal else self.storage)

    @property
    def journal(self) -> bool:
        """Whether the trials are in a journal in the study's folder."""
        return self.storage == "journal"


@dataclass
class Outcome:
    """What happened to a study, and the results of the checks."""

    plan: Plan
    hits: list[tuple[str, str]] = field(default_factory=list)
    damaged_checkpoints: int = 0
    torn_lines: int = 0
    restarts: int = 0
    longest_orphan_s: float = 0.0
    compared: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Number of processes killed; a restart of the server does not count."""
        return sum(kind != "server" for kind, _ in self.hits)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without passwords."""
        plan = {**vars(self.plan), "storage": masked(self.plan.storage)}
        return {**vars(self), "plan": plan, "kills": self.kills}


class Siege:
    """A test that kills processes of one study until its kills are used up or it has ended.

    Args:
        plan: The study, and how its processes are killed.
        root: The folder that contains the study's folder.
        golden: Losses of the undisturbed study, by digest.
        server: The server of the database, if it may be restarted.
    """

    def __init__(
        self, plan: Plan, root: Path, golden: dict[str, float], server: Server | None = None
    ) -> None:
        self.plan, self.root, self.golden, self._server = plan, root, golden, server
        self.folder = root / plan.name
        self.outcome = Outcome(plan)
        self._rng = random.Random(plan.seed)
        self._ended: dict[int, TrialRecord] = {}
        self._log = root / f"{plan.name}.log"
        self._drivers: list[subprocess.Popen[bytes]] = []
        self._bereaved: list[psutil.Process] = []

    def run(self) -> Outcome:
        """Kill, resume and check; raise `AssertionError` that names what was lost."""
        try:
            self._reinforce()
            while self.outcome.kills < self.plan.kills and self._strike():
                self._check_now()
                self._reinforce()
            finished = self._resume()
            assert finished == self._resume(), f"{self.plan.name}: resuming changed what was over"
        finally:  # a failed check leaves drivers running
            for driver in self._drivers:
                driver.kill()
        self._check_the_end(finished)
        return self.outcome

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self.plan.command(self.root), stdout=log, stderr=log)

    def _reinforce(self) -> None:
        """Replace drivers that have ended, sometimes one of several only later."""
        for driver in self._drivers:
            code = driver.poll()
            assert code in {None, *self._allowed}, f"{self.plan.name}: a driver ended with {code}"
        self._drivers = [driver for driver in self._drivers if driver.poll() is None]
        while len(self._drivers) < self.plan.drivers:
            if self._drivers and self._rng.random() < 0.3:
                return
            self.outcome.restarts += bool(self.outcome.hits)
            self._drivers.append(self._start())

    @property
    def _allowed(self) -> set[int]:
        """Exit codes that the last kill or restart explains."""
        last = self.outcome.hits[-1][0] if self.outcome.hits else ""
        # A driver whose own measurer was killed ends with a message; so does one without a server.
        return {0, -signal.SIGKILL} | ({2} if last in ("measurer", "server") else set())

    def _strike(self) -> bool:
        """Kill or restart once; return False if the study had ended."""
        plan = self.plan
        scene = Scene(self._drivers, self.folder, plan.runner, plan.workers, self._database)
        kinds = [kind for kind in _WEIGHTS if kind != "server" or self._server]
        kind = self._rng.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]
        known = moments(plan.runner, plan.journal)
        moment = self._rng.choice(list(known))
        if not wait_for(scene, moment, known[moment][1], self._rng, plan.patience_s):
            return False
        if kind == "server":
            self._restart_the_server()
        else:
            kind = self._kill(scene, kind)
        self.outcome.hits.append((kind, moment))
        return True

    def _kill(self, scene: Scene, kind: str) -> str:
        """Kill a process of a kind, or a driver if there is none; return the kind killed."""
        victims = scene.victims(kind)
        if not victims:
            kind, victims = "driver", scene.victims("driver")
        victim = self._rng.choice(victims)
        below = family(victim.pid)
        self._bereaved += below if kind == "driver" else []
        with suppress(psutil.NoSuchProcess):
            victim.kill()
        for driver in self._drivers:
            if driver.pid == victim.pid:
                driver.wait()
        orphan_s = gone(below, ORPHANS_S)
        assert orphan_s is not None, f"{self.plan.name}: {running(below)} outlive their {kind}"
        self.outcome.longest_orphan_s = max(self.outcome.longest_orphan_s, orphan_s)
        if scene.over:
            if self._rng.random() < 0.4:
                self._damage_a_checkpoint()
            if self._rng.random() < 0.4:
                self._tear_the_journal()
        return kind

    def _restart_the_server(self) -> None:
        assert self._server is not None
        self._server.stop(self._rng.choice(["fast", "immediate"]))
        time.sleep(self._rng.uniform(0, 3))
        self._server.start()

    def _damage_a_checkpoint(self) -> None:
        """Truncate a checkpoint, as may happen in a power failure."""
        for path in sorted(self.folder.glob(f"artefacts/*/{CHECKPOINT}")):
            os.truncate(path, self._rng.randrange(path.stat().st_size))
            self.outcome.damaged_checkpoints += 1
            return

    def _tear_the_journal(self) -> None:
        """Append the beginning of a line, as if a write had been interrupted."""
        journal = self.folder / "journal.log"
        if journal.is_file() and (lines := journal.read_bytes().splitlines()):
            with journal.open("ab") as file:
                file.write(lines[-1][: self._rng.randrange(1, len(lines[-1]))])
            self.outcome.torn_lines += 1

    def _resume(self) -> StudyRecord:
        """Let the running drivers, or else a new one, finish the study."""
        self._drivers = self._drivers or [self._start()]
        codes = {driver.wait(RESUME_S) for driver in self._drivers}
        if 2 in codes & self._allowed:
            self._drivers = [self._start()]
            codes = {self._drivers[0].wait(RESUME_S)}
        self._drivers = []
        assert codes == {0}, f"{self.plan.name}: resuming ended with {codes}, see {self._log}"
        return self.plan.store(self.root).record()

    @cached_property
    def _database(self) -> Engine | None:
        """The database, to find out whether a driver is deciding."""
        if self.plan.journal:
            return None
        return create_engine(absolute(self.plan.storage, self.folder), pool_pre_ping=True)

    def _check_now(self) -> None:
        """Assert that no finished trial is lost or changed, and none exists twice."""
        try:
            record = self.plan.store(self.root).record()
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
            loss = trial.objectives[TRAINED_OBJECTIVE]
            assert loss == self.golden[trial.digest], f"{trial.name}: {loss} after resuming"
            self.outcome.compared += 1
        assert not running(self._bereaved, agents=True), f"{self.plan.name}: processes are left"
        _, traceback, rest = self._log.read_text().partition("Traceback")
        assert not traceback, f"{self.plan.name}: {rest[:4000]}"
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
        record = plan.store(root).record()
        losses = {t.digest: t.objectives[TRAINED_OBJECTIVE] for t in record.complete}
        path.write_text(json.dumps(losses))
    found: dict[str, float] = json.loads(path.read_text())
    return found


def _essence(trial: TrialRecord) -> tuple[Any, ...]:
    """Return what must never change; a latency is measured again when a study ends."""
    exact = {name: v for name, v in trial.objectives.items() if name != "latency_ms"}
    return trial.state, trial.digest, exact, trial.history
