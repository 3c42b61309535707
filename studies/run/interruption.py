"""What Ctrl-C and SIGTERM mean to a running study: stop cleanly; the second time, at once.

The first signal becomes `Interrupted`, raised where the study waits, for an evaluation or anything
else, but never between two writes to its storage. The second becomes a plain `KeyboardInterrupt`,
wherever it comes; the third is the system's to handle.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from nas.findings import Findings
from search_spaces.architecture import Architecture
from studies.run.crew import Crew, Interrupted, TrialEvent

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Takes the signals while it is entered."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._held = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._take) for signum in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep a first signal for later, but for where it is `allowed`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Raise `Interrupted` inside if a signal came or comes."""
        self._held = False
        try:
            self.check()
            yield
        finally:
            self._held = True

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signum is not None:
            raise Interrupted(self.signum)

    def _take(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.signum = signum
        if not self._held:
            raise Interrupted(signum)


class Interruptible:
    """A crew whose runner can be interrupted while it waits, and only then."""

    def __init__(self, crew: Crew, interruption: Interruption) -> None:
        self.size, self.apart = crew.size, crew.apart
        self._crew, self._interruption = crew, interruption

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Begin to evaluate."""
        self._crew.start(number, architecture, known)

    def next(self) -> TrialEvent:
        """Wait for the next event; raise `Interrupted` when a signal came or comes."""
        with self._interruption.allowed():
            return self._crew.next()

    def answer(self, number: int, go_on: bool) -> None:
        """Let an evaluation go on, or end it."""
        self._crew.answer(number, go_on)
