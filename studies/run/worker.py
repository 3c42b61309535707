"""A worker process: how it evaluates, its limits, and how it ended."""

from __future__ import annotations

import contextlib
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.protocol import OnBatch
from profiling.child_process import ChildProcess
from profiling.errors import ProfilingError
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.config.trial_limits import TrialLimits, own_memory_bytes

PROGRESS_EVERY_S = 0.25
"""Seconds between two reports of a worker's progress within an epoch."""


class Evaluate(Protocol):
    """A function from an architecture to a stream of growing findings."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield the findings after each step; the last ones have `step == "done"`.

        Args:
            architecture: The candidate.
            known: Findings of an earlier evaluation that did not finish.

        Raises:
            CandidateFailed: the candidate cannot be evaluated; the study continues without it.
        """


class Worker:
    """A worker process and the pipe to it.

    Args:
        make: Called in the process with a callback for batches; returns the evaluator.
    """

    def __init__(self, make: Callable[[OnBatch], Evaluate]) -> None:
        # Not a daemon: the worker starts a process of its own for measurements.
        child = ChildProcess(_work, make, name="nas-worker", daemon=False)
        self.pipe, self.process = child.pipe, child.process
        self._begun: float | None = None
        self._oom_kills_before = _oom_kills()

    def give(self, architecture: Architecture, known: Findings | None) -> None:
        """Send the process an architecture to evaluate."""
        self._begun, self._oom_kills_before = None, _oom_kills()
        with contextlib.suppress(OSError):  # if it has ended, reading its events shows that
            self.pipe.send((architecture, known))

    def begun(self) -> None:
        """Start the clock of the time limit: the process has started the evaluation."""
        self._begun = time.monotonic()

    def excess(self, limits: TrialLimits) -> str | None:
        """Return which limit the trial has exceeded, as a sentence; None if none."""
        return limits.excess(self._begun, self.process.pid)

    def memory_bytes(self) -> int:
        """Return the private memory of the process and its children in bytes."""
        return own_memory_bytes(self.process.pid)

    def end(self, patience_s: float = 5.0) -> str:
        """Wait for the process to end, kill it after `patience_s` seconds, return how it ended."""
        self.process.join(patience_s)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        return f"its process was killed by {signal.Signals(-code).name}{self._why(-code)}"

    def _why(self, signum: int) -> str:
        """Return a hint at lack of memory: the kernel does not report which process it killed."""
        # On Windows, which has no SIGKILL, no kills are counted.
        if _oom_kills() <= self._oom_kills_before or signum != signal.SIGKILL:
            return ""
        return (
            ", and the kernel has killed a process for lack of memory meanwhile: "
            "use fewer --workers, or set --trial-memory"
        )


def _oom_kills(table: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes Linux has killed for lack of memory; 0 if unknown."""
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _work(pipe: Connection, make: Callable[[OnBatch], Evaluate]) -> None:
    """Evaluate architectures from the pipe until it closes."""
    try:
        with _warnings_sent(pipe):
            _serve(pipe, make(_Reporter(pipe)))
    except (BrokenPipeError, ConnectionResetError):
        return  # the driver has closed the pipe
    except (UserError, ProfilingError) as error:
        _send(pipe, "refused", str(error))
    except BaseException:  # of any kind: the driver has to show it
        _send(pipe, "broken", traceback.format_exc())


def _serve(pipe: Connection, evaluate: Evaluate) -> None:
    while True:
        try:
            architecture, known = pipe.recv()
        except EOFError:
            return
        pipe.send(("begun", None))
        try:
            for findings in evaluate(architecture, known):
                pipe.send(("found", findings))
                if not pipe.recv():
                    break
        except CandidateFailed as failure:
            pipe.send(("failed", str(failure)))
        else:
            pipe.send(("ended", None))


def _send(pipe: Connection, kind: str, text: str) -> None:
    with contextlib.suppress(OSError):
        pipe.send((kind, text))


@contextlib.contextmanager
def _warnings_sent(pipe: Connection) -> Iterator[None]:
    """Send warnings to the driver, which writes to the terminal."""

    def show(message: Warning | str, category: type[Warning], *_where: Any, **__: Any) -> None:
        if issubclass(category, RuntimeWarning):
            _send(pipe, "warned", str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _Reporter:
    """Reports batches to the driver at intervals; if the driver is gone, the training ends."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._reported = pipe, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._reported >= PROGRESS_EVERY_S:
            self._reported = now
            self._pipe.send(("batch", (done, total)))
