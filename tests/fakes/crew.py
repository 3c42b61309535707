"""Crews for tests: several evaluations at once without processes, and makers for real ones."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.protocol import OnBatch
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from studies.run.crew import Evaluate, TrialEvent
from tests.fakes.evaluator import FakeEvaluator


class TurnTaking:
    """Advances up to `size` evaluations in this process, one finding of each in turn."""

    apart = False

    def __init__(self, size: int, evaluate: Evaluate) -> None:
        self.size, self._evaluate = size, evaluate
        self._running: dict[int, Iterator[Findings]] = {}
        self.most = 0

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        self._running[number] = self._evaluate(architecture, known)
        self.most = max(self.most, len(self._running))

    def next(self) -> TrialEvent:
        number = next(iter(self._running))
        findings = self._running.pop(number)
        try:
            event = TrialEvent(number, "found", next(findings))
        except StopIteration:
            return TrialEvent(number, "ended")
        except CandidateFailed as failure:
            return TrialEvent(number, "failed", reason=str(failure))
        self._running[number] = findings
        return event

    def answer(self, number: int, go_on: bool) -> None:
        if not go_on:
            self._running[number] = iter(())


class Mischief:
    """Evaluates in a worker process; what goes wrong, and how often, stands in a folder.

    A file named after a kind of trouble holds how many more evaluations it shall befall, once the
    references, which are evaluated first, are through.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, on_batch: OnBatch) -> Evaluate:
        return Troubled(self.folder, on_batch)


class Troubled(FakeEvaluator):
    """A fake evaluator that looks for trouble between its first finding and its second."""

    def __init__(self, folder: Path, on_batch: OnBatch) -> None:
        super().__init__()
        self.folder, self.on_batch = folder, on_batch

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            if findings.step == "training":
                self._look()
            yield findings
            (self.folder / f"{architecture.digest}.{os.getpid()}").touch()

    def _look(self) -> None:
        self.on_batch(1, 2)
        if self._befalls("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._befalls("hung"):
            time.sleep(3600)
        if self._befalls("greedy"):
            self.taken = b"x" * 1_200_000_000
            time.sleep(3600)
        if self._befalls("warned"):
            warnings.warn("a checkpoint is damaged", RuntimeWarning, stacklevel=2)
        if self._befalls("failed"):
            raise CandidateFailed("training diverged at epoch 1")
        if self._befalls("refused"):
            raise UserError("disk: full; make room")
        if self._befalls("broken"):
            raise ZeroDivisionError("a fault of ours")

    def _befalls(self, trouble: str) -> bool:
        path = self.folder / trouble
        left = int(path.read_text()) if path.exists() else 0
        if left > 0:
            path.write_text(str(left - 1))
        return left > 0
