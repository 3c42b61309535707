"""Evaluate architectures in this process or in several worker processes.

The runner starts evaluations on a crew and reads events from it, one at a time, in the order in
which they happen. After each `found` event the evaluation waits for the runner's answer: continue
or end. In this way a limit or early stopping ends an evaluation. Only the runner talks to the
sampler and writes to the storage.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Literal, Protocol, Self, cast

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.protocol import OnBatch
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import LOOK_S, UNLIMITED, TrialLimits
from studies.run.worker import Evaluate, Worker

__all__ = ["Alone", "Crew", "Evaluate", "Interrupted", "TrialEvent", "Workers"]

LEAVE_S = 2.0
"""Seconds that busy workers have to reach a batch boundary when the crew closes."""


@dataclass(frozen=True)
class TrialEvent:
    """An event in the evaluation of a trial.

    Attributes:
        number: The trial's number.
        kind: `found`: there are new findings, and the evaluation waits for `answer`. `batch`: the
            training made progress. `ended`: the evaluation is over. `failed`: the candidate cannot
            be evaluated, or exceeded a limit of time or memory. `died`: its process ended
            unexpectedly. `warned`: a warning for the user; the evaluation continues.
        findings: All findings so far, with `found`.
        reason: The reason of the failure, how the process ended, or the text of the warning.
        batches: Number of batches done and total in the current epoch, with `batch`.
    """

    number: int
    kind: Literal["found", "batch", "ended", "failed", "died", "warned"]
    findings: Findings | None = None
    reason: str | None = None
    batches: tuple[int, int] = (0, 1)


class Interrupted(KeyboardInterrupt):
    """A signal by which the user stops a study; it can be resumed later."""

    @property
    def signum(self) -> int:
        """SIGINT, SIGTERM or SIGHUP."""
        return int(self.args[0])


class Executor(Protocol):
    """Starts evaluations of architectures, up to `size` at a time."""

    @property
    def size(self) -> int:
        """Largest number of evaluations at a time; it may change."""

    @property
    def apart(self) -> bool:
        """Whether other processes evaluate, so that no candidate can end this process."""

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Start an evaluation, or resume it from known findings; fewer than `size` may run."""

    def answer(self, number: int, go_on: bool) -> None:
        """Continue an evaluation that waits after `found`, or end it."""


class Crew(Executor, Protocol):
    """An executor whose events can be read."""

    def next(self) -> TrialEvent:
        """Wait for the next event of any evaluation.

        Raises:
            Interrupted: the user stops the study, to resume it later.
        """


class Alone:
    """Evaluates in this process, one architecture at a time."""

    size, apart = 1, False

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._number = -1
        self._findings: Iterator[Findings] = iter(())

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Start an evaluation."""
        self._number, self._findings = number, self._evaluate(architecture, known)

    def next(self) -> TrialEvent:
        """Evaluate until the next findings."""
        try:
            return TrialEvent(self._number, "found", next(self._findings))
        except StopIteration:
            return TrialEvent(self._number, "ended")
        except CandidateFailed as failure:
            return TrialEvent(self._number, "failed", reason=str(failure))

    def answer(self, number: int, go_on: bool) -> None:
        """Continue at the next call of `next`, or end the evaluation."""
        if not go_on:
            self._findings = iter(())


class Workers:
    """Evaluates in up to `size` worker processes, each with its own evaluator.

    Args:
        size: Number of processes.
        make: Called in each process with a callback for batches; returns the evaluator. It must be
            picklable: processes are spawned, because torch's threads do not survive a fork.
        limits: Limits of time and memory of one trial; a process that exceeds one is killed.
    """

    apart = True

    def __init__(
        self,
        size: int,
        make: Callable[[OnBatch], Evaluate],
        limits: TrialLimits = UNLIMITED,
    ) -> None:
        self.size, self._make, self._limits = size, make, limits
        self._idle: list[Worker] = []
        self._busy: dict[int, Worker] = {}
        self._late: list[TrialEvent] = []
        self._look_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        busy = list(self._busy.values())
        for worker in busy:
            worker.pipe.close()  # the worker notices at its next batch boundary
        orderly = kind is None or issubclass(kind, Interrupted)
        deadline = time.monotonic() + (LEAVE_S if orderly else 0.0)
        try:
            for worker in busy:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # killing is safe: checkpoints are replaced atomically
            for worker in [*busy, *self._idle]:
                worker.end(patience_s=0.0)
            self._idle, self._busy = [], {}

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Start an evaluation in an idle process, or else in a new one."""
        worker = self._idle.pop() if self._idle else Worker(self._make)
        self._busy[number] = worker
        worker.give(architecture, known)

    def next(self) -> TrialEvent:
        """Wait for the next event of any process."""
        while not self._late:
            pipes = {worker.pipe: number for number, worker in self._busy.items()}
            ready = wait(list(pipes), LOOK_S if self._limits else None)
            for pipe in cast(list[Connection], ready):  # another class on Windows
                self._receive(pipes[pipe], pipe)
            if self._limits and not self._late:
                self._look()
        return self._late.pop(0)

    def answer(self, number: int, go_on: bool) -> None:
        """Send the answer to the process."""
        with contextlib.suppress(OSError):
            self._busy[number].pipe.send(go_on)

    def _receive(self, number: int, pipe: Connection) -> None:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            kind, content = "died", self._busy.pop(number).end()
        if kind == "broken":  # a fault of this program, not of the candidate: end the study
            raise RuntimeError(f"a worker raised an unexpected error:\n{content}")
        if kind == "refused":
            raise UserError(content)
        if kind == "begun":
            self._busy[number].begun()
        elif kind == "found":
            self._late.append(TrialEvent(number, "found", findings=content))
        elif kind == "batch":
            self._late.append(TrialEvent(number, "batch", batches=content))
        else:
            self._late.append(TrialEvent(number, kind, reason=content))
            if kind in ("ended", "failed"):
                self._rest(self._busy.pop(number))

    def _rest(self, worker: Worker) -> None:
        """Keep a process for the next trial, unless it still holds much memory."""
        limit = self._limits.memory_bytes
        if limit is not None and worker.memory_bytes() > limit / 2:
            worker.end(patience_s=0.0)
        else:
            self._idle.append(worker)

    def _look(self) -> None:
        """Kill the processes of trials that exceed a limit."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        for number, worker in list(self._busy.items()):
            if (reason := worker.excess(self._limits)) is not None:
                del self._busy[number]
                worker.end(patience_s=0.0)
                self._late.append(TrialEvent(number, "failed", reason=reason))
