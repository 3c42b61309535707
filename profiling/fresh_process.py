"""An object in a separate process, where the allocator can be configured.

glibc's allocator is configured once per process, so different configurations can be compared only
between processes. The calling process is not changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any, Self, TypeVar

from tqdm import tqdm

from profiling.allocator import tune_allocator
from profiling.child_process import ChildProcess
from profiling.errors import ProfilingError

_PATIENCE_S = 5.0

MOST_ENDED = 3
"""A measurement is given up after this many processes have ended while they did it."""

_Result = TypeVar("_Result")


class ProcessEndedError(ProfilingError):
    """The other process has ended."""


class FreshProcess:
    """Builds `factory(*args)` in a new process and calls its methods there, one at a time.

    The end of the `with` block ends the process.

    Args:
        factory: Makes the object. It must be picklable, like all arguments and results.
        args: Arguments of the factory.
        tuned: Whether the allocator of the new process keeps freed memory.
    """

    def __init__(self, factory: Callable[..., Any], *args: Any, tuned: bool = False) -> None:
        child = ChildProcess(_serve, factory, args, tuned, name="nas-fresh", daemon=True)
        self._connection, self._process = child.pipe, child.process
        # It runs before multiprocessing sends SIGTERM at exit, which the child process ignores.
        Finalize(self, self._process.kill, exitpriority=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.kill()  # it has no state to save
        self._process.join(_PATIENCE_S)

    def call(self, method: str, *args: Any, **callbacks: Callable[..., None] | None) -> Any:
        """Call a method of the object and return its result.

        Args:
            method: Name of the method.
            args: Its arguments.
            callbacks: Functions of this process, such as `progress`. The method gets an argument of
                the same name that calls the function; None is left out.

        Raises:
            ProcessEndedError: the process has ended, for example because memory ran out.
            Exception: the exception that the factory or the method raised.
        """
        try:
            given = {name: call for name, call in callbacks.items() if call}
            self._connection.send((method, args, tuple(given)))
            while True:
                word, content = self._connection.recv()
                if word in given:
                    given[word](*content)
                elif word == "result":
                    return content
                elif word == "error":
                    raise content
        except (EOFError, ConnectionError):
            raise ProcessEndedError(
                "process: the measuring process ended unexpectedly; the system may have stopped it "
                "for lack of memory: use a smaller batch"
            ) from None


def begun_again(call: Callable[..., _Result], *args: Any) -> _Result:
    """Call a function that works in a fresh process, and call it again if that process ended.

    The cause need not be the work: the system may have ended the process for lack of memory.

    Raises:
        ProcessEndedError: `MOST_ENDED` processes ended.
    """
    for _ in range(MOST_ENDED - 1):
        with suppress(ProcessEndedError):
            return call(*args)
    return call(*args)


def _serve(
    connection: Connection, factory: Callable[..., Any], args: tuple[Any, ...], tuned: bool
) -> None:
    """Answer calls until the other side closes the pipe."""
    if tuned:
        tune_allocator()
    # The exporter of torch draws progress bars. Their default lock is a semaphore of the system,
    # which would be left, with a warning, when this process is killed.
    tqdm.set_lock(threading.RLock())

    def report(name: str, *content: Any) -> None:
        connection.send((name, content))

    built: Any = None
    while True:
        try:
            method, values, callbacks = connection.recv()
        except EOFError:
            return
        try:
            built = built or factory(*args)
            extra = {name: partial(report, name) for name in callbacks}
            connection.send(("result", getattr(built, method)(*values, **extra)))
        except Exception as error:
            connection.send(("error", error))
