"""A child process that serves its parent through a pipe, and ends with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


class ChildProcess:
    """A new child process, and the pipe to it.

    It is spawned, not forked, because a fork inherits this process's allocator, and torch's threads
    do not survive it. It ends as soon as this process has ended. It ignores SIGINT, SIGTERM and
    SIGHUP, which are sent to every process of a terminal or a job; this process handles them.

    Args:
        serve: Called in the child process with its end of the pipe and `args`, which must be
            picklable. The process ends when it returns.
        args: Further arguments of `serve`.
        name: Name of the process.
        daemon: Whether it must not have child processes, and is terminated when this process exits.

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
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    serve(pipe, *args)


def _end_with_parent() -> None:
    """Make this process end as soon as its parent process has ended, whatever it is doing.

    Otherwise a measurement would still hold the lane, and a training the processor.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was not started by multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


@contextmanager
def main_not_imported() -> Iterator[None]:
    """Let processes that are spawned inside not import the program's main module.

    They would run a script again that is not protected by `if __name__ == "__main__"`. What they
    are sent must therefore come from other modules.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
