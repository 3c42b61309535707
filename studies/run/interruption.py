"""Handle Ctrl-C, SIGTERM and SIGHUP in a running study: the first signal stops it cleanly.

The first signal raises `Interrupted` while the study waits, for an evaluation or anything else, but
never between two writes to its storage. The second raises `KeyboardInterrupt` at any place. The
third has the system's default effect. SIGHUP says that the terminal was closed. It may come several
times, from the kernel and from a shell, so only the first one has an effect; it has none in a
process that was started with SIGHUP ignored (`nohup`).
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self

from nas.findings import Findings
from search_spaces.architecture import Architecture
from studies.run.crew import Crew, Interrupted, TrialEvent

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


class Interruption:
    """Handles SIGINT, SIGTERM and SIGHUP inside its `with` block."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._take) for signum in _signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay a first signal, except inside `allowed`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise `Interrupted` if a signal has come or comes inside the block."""
        self._held = False
        try:
            self.check()
            yield
        finally:
            self._held = True

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def _take(self, signum: int, _: FrameType | None) -> None:
        if signum == _HANGUP:
            _leave_terminal()
            if self.signum is not None:
                return
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.signum = signum
        if not self._held:
            raise Interrupted(signum)


def _signals() -> list[signal.Signals]:
    handled = [signal.SIGINT, signal.SIGTERM]
    if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
        handled.append(_HANGUP)
    return handled


def _leave_terminal() -> None:
    """Let standard streams of a closed terminal lead nowhere: writing there would raise errors."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(nowhere, stream)
    os.close(nowhere)


class Interruptible:
    """A crew whose runner can be interrupted only while it waits for an event."""

    def __init__(self, crew: Crew, interruption: Interruption) -> None:
        self.size, self.apart = crew.size, crew.apart
        self._crew, self._interruption = crew, interruption

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Start an evaluation."""
        self._crew.start(number, architecture, known)

    def next(self) -> TrialEvent:
        """Wait for the next event; raise `Interrupted` when a signal has come or comes."""
        with self._interruption.allowed():
            return self._crew.next()

    def answer(self, number: int, go_on: bool) -> None:
        """Continue an evaluation, or end it."""
        self._crew.answer(number, go_on)
