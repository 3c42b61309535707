"""An object that lives in a process of its own, where the allocator can be set up at will.

How glibc's allocator behaves is decided once per process: two settings compare only between
processes. The calling process keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any, Self

from profiling.allocator import tune_allocator
from profiling.child_process import ChildProcess
from profiling.errors import ProfilingError
from profiling.progress import Progress

_PATIENCE_S = 5.0


class ProcessEndedError(ProfilingError):
    """The other process is gone."""


class FreshProcess:
    """Builds `factory(*args)` in a new process and calls its methods there, one at a time.

    The process starts like this one did, with freed memory kept if `tuned`. Factory, arguments and
    results must be picklable. Leaving the `with` block ends the process.
    """

    def __init__(self, factory: Callable[..., Any], *args: Any, tuned: bool = False) -> None:
        child = ChildProcess(_serve, factory, args, tuned, name="nas-fresh", daemon=True)
        self._connection, self._process = child.pipe, child.process
        # Before multiprocessing asks it to terminate at this process's end, which it does not heed.
        Finalize(self, self._process.kill, exitpriority=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.kill()  # it has nothing to lose
        self._process.join(_PATIENCE_S)

    def call(self, method: str, *args: Any, progress: Progress | None = None) -> Any:
        """Call a method there and return its result; with `progress`, it is passed one as well.

        Raises:
            ProcessEndedError: the process is gone, as it is when memory runs out.
            Exception: what the factory or the method raised.
        """
        try:
            self._connection.send((method, args, progress is not None))
            while True:
                word, content = self._connection.recv()
                if word == "progress" and progress:
                    progress(*content)
                elif word == "result":
                    return content
                elif word == "error":
                    raise content
        except (EOFError, ConnectionError):
            raise ProcessEndedError(
                "process: the measuring process ended unexpectedly; the system may have stopped it "
                "for lack of memory: use a smaller batch"
            ) from None


def _serve(
    connection: Connection, factory: Callable[..., Any], args: tuple[Any, ...], tuned: bool
) -> None:
    """Answer calls until the other side hangs up."""
    if tuned:
        tune_allocator()

    def report(done: int, total: int) -> None:
        connection.send(("progress", (done, total)))

    built: Any = None
    while True:
        try:
            method, values, wants_progress = connection.recv()
        except EOFError:
            return
        try:
            built = built or factory(*args)
            extra = {"progress": report} if wants_progress else {}
            connection.send(("result", getattr(built, method)(*values, **extra)))
        except Exception as error:
            connection.send(("error", error))
