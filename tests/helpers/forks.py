"""Processes that start at once: forked from a server that has imported what they need.

The server is a new process, in which nothing but imports has happened: what it forks is as fresh as
a spawned one, and receives the same pickled function and arguments. Spawned processes would each
spend seconds on imports.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

IMPORTED = ["nas.evaluate", "studies.run.evaluators", "studies.run.runner", "studies.store.store"]
# torch imports these late: with the first costs that are counted, and with the first export.
IMPORTED += ["torch._dynamo", "torch.onnx._internal.exporter._core", "onnxscript"]


class Process(ForkServerProcess):
    """Gets the environment of whoever starts it, not that of the server."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.environment = dict(os.environ)

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        super().run()


class Forks(ForkServerContext):
    """Takes the place of the context named `spawn`."""

    Process = Process


@contextmanager
def forked_instead_of_spawned() -> Iterator[None]:
    """Let `multiprocessing` fork from a server wherever it is asked to spawn."""
    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    forks = Forks()
    forks.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(contexts, "spawn", forks)
        yield
