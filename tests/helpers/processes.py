"""Processes that this test process has started, and their descendants."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

import psutil

_MARK = "NAS_TESTS_PROCESS"
_OWN = uuid.uuid4().hex
_PYTHON_S_OWN = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Servants of `multiprocessing`, which end with the interpreter that they serve."""


def mark_descendants() -> None:
    """Mark every process that is started from now on, by a variable of its environment."""
    os.environ[_MARK] = _OWN


def descendants() -> list[psutil.Process]:
    """Return the marked processes that are running, also those whose parent has ended."""
    return [one for one in psutil.process_iter() if _is_ours(one)]


def _is_ours(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        if process.pid != os.getpid() and process.environ().get(_MARK) == _OWN:
            words = " ".join(process.cmdline())
            return not any(name in words for name in _PYTHON_S_OWN)
    return False
