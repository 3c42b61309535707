"""A process that serves this one through a pipe, and never outlives it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


class ChildProcess:
    """A process that was started afresh, and the pipe to it.

    It is spawned, not forked: a fork would inherit this process's allocator, and torch's threads
    survive none. It ends as soon as this process has ended, and leaves SIGINT and SIGTERM, which go
    to every process of a terminal or a job, to this one.

    Args:
        serve: Called there with its end of the pipe and `args`; the process ends when it returns.
            Must be picklable, as must `args`.
        name: Name of the process.
        daemon: Whether it may have no child processes, and is ended when this process exits.

    Attributes:
        pipe: This process's end of the pipe.
        process: The process.
    """

    def __init__(self, serve: Callable[..., None], *args: Any, name: str, daemon: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe: Connection
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_begin, args=(theirs, serve, args), name=name, daemon=daemon
        )
        self.process.start()
        theirs.close()


def _begin(pipe: Connection, serve: Callable[..., None], args: tuple[Any, ...]) -> None:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve(pipe, *args)


def _end_with_parent() -> None:
    """From now on this process ends as soon as the one that started it has, whatever it is doing.

    A measurement that nobody waits for would hold the lane, a training the processor.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not started by multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
