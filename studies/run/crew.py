"""Who evaluates: this process, or several beside it. The runner alone asks, tells and decides.

A crew is given architectures and hands back events, one at a time, in the order in which they
happen. After each finding it waits to be told whether to go on: that is how a limit or a rule that
stops a training early reaches it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Literal, Protocol, Self

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.protocol import OnBatch
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import LOOK_S, UNLIMITED, TrialLimits
from studies.run.worker import Evaluate, Worker

__all__ = ["Alone", "Crew", "Evaluate", "Interrupted", "TrialEvent", "Workers"]

LEAVE_S = 2.0
"""Seconds in which busy workers may reach a batch boundary when they are asked to leave."""


@dataclass(frozen=True)
class TrialEvent:
    """Something that happened to the evaluation of a trial.

    Attributes:
        number: The trial's number.
        kind: `found`: more is known, and the evaluation waits for `answer`. `batch`: training got
            on. `ended`: it is over. `failed`: the candidate cannot be evaluated, or exceeded a
            limit. `died`: the process that evaluated it is gone. `warned`: it goes on, but the user
            should know.
        findings: What is known, after `found`.
        reason: Why it failed, how its process ended, or what it warned of.
        batches: Batches done and in all of the running epoch, after `batch`.
    """

    number: int
    kind: Literal["found", "batch", "ended", "failed", "died", "warned"]
    findings: Findings | None = None
    reason: str | None = None
    batches: tuple[int, int] = (0, 1)


class Interrupted(KeyboardInterrupt):
    """The user wants a study to stop where it is, to be resumed later; holds the signal."""

    @property
    def signum(self) -> int:
        """SIGINT or SIGTERM."""
        return int(self.args[0])


class Hands(Protocol):
    """Evaluates up to `size` architectures at a time, `apart` from this process or in it."""

    @property
    def size(self) -> int:
        """How many evaluations there is room for; it may change."""

    @property
    def apart(self) -> bool:
        """Whether other processes evaluate, so that a candidate cannot take this one with it."""

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Begin to evaluate, or go on from what is known; there must be room."""

    def answer(self, number: int, go_on: bool) -> None:
        """Let an evaluation go on after `found`, or end it there."""


class Crew(Hands, Protocol):
    """Hands that can be waited for."""

    def next(self) -> TrialEvent:
        """Wait for the next event of any evaluation.

        Raises:
            Interrupted: the user wants to stop here, and to resume later.
        """


class Alone:
    """Evaluates in this process, one architecture at a time."""

    size, apart = 1, False

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._number = -1
        self._findings: Iterator[Findings] = iter(())

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Begin to evaluate."""
        self._number, self._findings = number, self._evaluate(architecture, known)

    def next(self) -> TrialEvent:
        """Evaluate up to the next finding."""
        try:
            return TrialEvent(self._number, "found", next(self._findings))
        except StopIteration:
            return TrialEvent(self._number, "ended")
        except CandidateFailed as failure:
            return TrialEvent(self._number, "failed", reason=str(failure))

    def answer(self, number: int, go_on: bool) -> None:
        """Go on at the next call of `next`, or not."""
        if not go_on:
            self._findings = iter(())


class Workers:
    """Evaluates in `size` processes, each with an evaluator of its own.

    Args:
        size: Number of processes.
        make: Called in each process with a function to report batches to; returns its evaluator.
            Must be picklable: processes start afresh, since torch's threads survive no fork.
        limits: What a trial may take; the process of one that takes more is killed.
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
            worker.pipe.close()  # which it learns at its next batch boundary
        orderly = kind is None or issubclass(kind, Interrupted)
        deadline = time.monotonic() + (LEAVE_S if orderly else 0.0)
        try:
            for worker in busy:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # checkpoints are whole at every moment
            for worker in [*busy, *self._idle]:
                worker.end(patience_s=0.0)
            self._idle, self._busy = [], {}

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Give a process something to evaluate: an idle one, or else a new one."""
        worker = self._idle.pop() if self._idle else Worker(self._make)
        self._busy[number] = worker
        worker.give(architecture, known)

    def next(self) -> TrialEvent:
        """Wait for any process to report."""
        while not self._late:
            pipes = {worker.pipe: number for number, worker in self._busy.items()}
            for pipe in wait(list(pipes), LOOK_S if self._limits else None):
                assert isinstance(pipe, Connection)
                self._receive(pipes[pipe], pipe)
            if self._limits and not self._late:
                self._look()
        return self._late.pop(0)

    def answer(self, number: int, go_on: bool) -> None:
        """Send the process its answer."""
        with contextlib.suppress(OSError):
            self._busy[number].pipe.send(go_on)

    def _receive(self, number: int, pipe: Connection) -> None:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            kind, content = "died", self._busy.pop(number).end()
        if kind == "broken":  # not the candidate's fault: the study must not go on
            raise RuntimeError(f"a worker broke down:\n{content}")
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
        """Keep a process for the next trial, unless this one left it with much memory."""
        limit = self._limits.memory_bytes
        if limit is not None and worker.memory_bytes() > limit / 2:
            worker.end(patience_s=0.0)
        else:
            self._idle.append(worker)

    def _look(self) -> None:
        """Kill what takes more than a trial may."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        for number, worker in list(self._busy.items()):
            if (reason := worker.excess(self._limits)) is not None:
                del self._busy[number]
                worker.end(patience_s=0.0)
                self._late.append(TrialEvent(number, "failed", reason=reason))
