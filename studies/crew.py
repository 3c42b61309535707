"""Who evaluates: this process, or several beside it. The runner alone asks, tells and decides.

A crew is given architectures and hands back events, one at a time, in the order in which they
happen. After each finding it waits to be told whether to go on: that is how a limit or a rule that
stops a training early reaches it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Literal, Protocol, Self

from nas.evaluate import CandidateFailed, Findings
from profiling.errors import ProfilingError
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

BATCH_S = 0.25
"""Seconds between two reports of a worker's progress within an epoch."""

OnBatch = Callable[[int, int], None]


class Evaluate(Protocol):
    """Anything that turns an architecture into a growing stream of findings."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield what is known after each step; the last one has `step == "done"`.

        `known` is what an earlier evaluation, ended before its time, had found.

        Raises:
            CandidateFailed: the candidate cannot be evaluated; the study goes on without it.
        """


@dataclass(frozen=True)
class Event:
    """Something that happened to the evaluation of a trial.

    Attributes:
        number: The trial's number.
        kind: `found`: more is known, and the evaluation waits for `answer`. `batch`: training got
            on. `ended`: it is over. `failed`: the candidate cannot be evaluated. `died`: the
            process that evaluated it is gone.
        findings: What is known, after `found`.
        reason: Why it failed, or how its process ended.
        batches: Batches done and in all of the running epoch, after `batch`.
    """

    number: int
    kind: Literal["found", "batch", "ended", "failed", "died"]
    findings: Findings | None = None
    reason: str | None = None
    batches: tuple[int, int] = (0, 1)


class Hands(Protocol):
    """Evaluates up to `size` architectures at a time."""

    @property
    def size(self) -> int:
        """How many evaluations there is room for; it may change."""

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Begin to evaluate, or go on from what is known; there must be room."""

    def answer(self, number: int, go_on: bool) -> None:
        """Let an evaluation go on after `found`, or end it there."""


class Crew(Hands, Protocol):
    """Hands that can be waited for."""

    def next(self) -> Event:
        """Wait for the next event of any evaluation."""


class Alone:
    """Evaluates in this process, one architecture at a time."""

    size = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._number = -1
        self._findings: Iterator[Findings] = iter(())

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Begin to evaluate."""
        self._number, self._findings = number, self._evaluate(architecture, known)

    def next(self) -> Event:
        """Evaluate up to the next finding."""
        try:
            return Event(self._number, "found", next(self._findings))
        except StopIteration:
            return Event(self._number, "ended")
        except CandidateFailed as failure:
            return Event(self._number, "failed", reason=str(failure))

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
    """

    def __init__(self, size: int, make: Callable[[OnBatch], Evaluate]) -> None:
        self.size, self._make = size, make
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}
        self._late: list[Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *self._busy.values()]:
            worker.end(patience_s=0.0)  # checkpoints are whole at every moment
        self._idle, self._busy = [], {}

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Give a process something to evaluate: an idle one, or else a new one."""
        worker = self._idle.pop() if self._idle else _Worker(self._make)
        self._busy[number] = worker
        with contextlib.suppress(OSError):  # if it is gone, waiting for it tells so
            worker.pipe.send((architecture, known))

    def next(self) -> Event:
        """Wait for any process to report."""
        while True:
            if self._late:
                return self._late.pop(0)
            pipes = {worker.pipe: number for number, worker in self._busy.items()}
            for pipe in wait(list(pipes)):
                assert isinstance(pipe, Connection)
                self._late.append(self._received(pipes[pipe], pipe))

    def answer(self, number: int, go_on: bool) -> None:
        """Send the process its answer."""
        with contextlib.suppress(OSError):
            self._busy[number].pipe.send(go_on)

    def _received(self, number: int, pipe: Connection) -> Event:
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            return Event(number, "died", reason=self._busy.pop(number).end())
        if kind == "broken":  # not the candidate's fault: the study must not go on
            raise RuntimeError(f"a worker broke down:\n{content}")
        if kind == "refused":
            raise UserError(content)
        if kind == "found":
            return Event(number, "found", findings=content)
        if kind == "batch":
            return Event(number, "batch", batches=content)
        self._idle.append(self._busy.pop(number))
        return Event(number, kind, reason=content)


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, make: Callable[[OnBatch], Evaluate]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            # Not a daemon: it has a process of its own, which measures.
            target=_work,
            args=(theirs, make),
            name="nas-worker",
        )
        self.process.start()
        theirs.close()

    def end(self, patience_s: float = 5.0) -> str:
        """End the process, if it does not by itself, and say how it had ended."""
        self.process.join(patience_s)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if code is not None and code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def _work(pipe: Connection, make: Callable[[OnBatch], Evaluate]) -> None:
    """Evaluate what comes through the pipe until it closes."""
    # Ctrl-C goes to every process of a terminal; the driver alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        evaluate = make(_Reporter(pipe))
        while True:
            try:
                architecture, known = pipe.recv()
            except EOFError:
                return
            _report(pipe, evaluate(architecture, known))
    except (BrokenPipeError, ConnectionResetError):
        return  # the driver is gone
    except (UserError, ProfilingError) as error:
        pipe.send(("refused", str(error)))
    except BaseException:  # whatever it is, the driver has to show it
        with contextlib.suppress(OSError):
            pipe.send(("broken", traceback.format_exc()))


def _report(pipe: Connection, stream: Iterator[Findings]) -> None:
    try:
        for findings in stream:
            pipe.send(("found", findings))
            if not pipe.recv():
                break
    except CandidateFailed as failure:
        pipe.send(("failed", str(failure)))
    else:
        pipe.send(("ended", None))


class _Reporter:
    """Tells the driver of batches, now and then, and ends the process when the driver is gone."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._told, self._driver = pipe, 0.0, os.getppid()

    def __call__(self, done: int, total: int) -> None:
        if os.getppid() != self._driver:
            raise BrokenPipeError("the driver is gone")
        now = time.monotonic()
        if now - self._told >= BATCH_S:
            self._told = now
            self._pipe.send(("batch", (done, total)))
