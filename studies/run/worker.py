"""One process that evaluates: what it does, what it may take, and how it ended."""

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
    """Anything that turns an architecture into a growing stream of findings."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield what is known after each step; the last one has `step == "done"`.

        `known` is what an earlier evaluation, ended before its time, had found.

        Raises:
            CandidateFailed: the candidate cannot be evaluated; the study goes on without it.
        """


class Worker:
    """One process and the pipe to it."""

    def __init__(self, make: Callable[[OnBatch], Evaluate]) -> None:
        # Not a daemon: it has a process of its own, which measures.
        child = ChildProcess(_work, make, name="nas-worker", daemon=False)
        self.pipe, self.process = child.pipe, child.process
        self._begun: float | None = None
        self._struck = _oom_kills()

    def give(self, architecture: Architecture, known: Findings | None) -> None:
        """Let it evaluate an architecture."""
        self._begun, self._struck = None, _oom_kills()
        with contextlib.suppress(OSError):  # if it is gone, waiting for it tells so
            self.pipe.send((architecture, known))

    def begun(self) -> None:
        """Start the clock: it is ready, and has taken up what it was given."""
        self._begun = time.monotonic()

    def excess(self, limits: TrialLimits) -> str | None:
        """Say which limit what it evaluates has exceeded, if any."""
        return limits.excess(self._begun, self.process.pid)

    def memory_bytes(self) -> int:
        """Memory that it and its children have for themselves."""
        return own_memory_bytes(self.process.pid)

    def end(self, patience_s: float = 5.0) -> str:
        """End the process, if it does not by itself, and say how it had ended."""
        self.process.join(patience_s)
        code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        return f"its process was killed by {signal.Signals(-code).name}{self._why(-code)}"

    def _why(self, signum: int) -> str:
        """Say whether memory may have run out: the kernel tells nobody whom it has killed."""
        if signum != signal.SIGKILL or _oom_kills() <= self._struck:
            return ""
        return (
            ", and the kernel has killed for lack of memory meanwhile: "
            "use fewer --workers, or set --trial-memory"
        )


def _oom_kills(table: Path = Path("/proc/vmstat")) -> int:
    """How often Linux has killed a process of this machine for lack of memory; 0 if unknown."""
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _work(pipe: Connection, make: Callable[[OnBatch], Evaluate]) -> None:
    """Evaluate what comes through the pipe until it closes."""
    try:
        with _warnings_sent(pipe):
            _serve(pipe, make(_Reporter(pipe)))
    except (BrokenPipeError, ConnectionResetError):
        return  # the driver wants no more
    except (UserError, ProfilingError) as error:
        _send(pipe, "refused", str(error))
    except BaseException:  # whatever it is, the driver has to show it
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
    """Leave it to the driver to show warnings: it owns the terminal."""

    def show(message: Warning | str, category: type[Warning], *_where: Any, **__: Any) -> None:
        if issubclass(category, RuntimeWarning):
            _send(pipe, "warned", str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class _Reporter:
    """Tells the driver of batches, now and then; a driver that hung up ends the training."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._told = pipe, 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_EVERY_S:
            self._told = now
            self._pipe.send(("batch", (done, total)))
