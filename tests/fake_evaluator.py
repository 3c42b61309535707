"""An evaluator that needs no time: objectives are made up from the architecture's digest."""

from __future__ import annotations

from collections.abc import Iterator

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from search_spaces.architecture import Architecture


class FakeEvaluator:
    """Counts its evaluations; `fail_on` and `interrupt_on` are numbers of calls, from 1."""

    def __init__(self, fail_on: int | None = None, interrupt_on: int | None = None) -> None:
        self.fail_on, self.interrupt_on = fail_on, interrupt_on
        self.trained: list[str] = []
        self.calls = 0

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        self.calls += 1
        number = int(architecture.digest, 16)
        costs = {"params": 1000.0 + number % 9973, "macs": 2000.0 + number % 9967}
        yield Findings("static", costs, timings_s={"counting": 0.25})
        if self.calls == self.interrupt_on:
            raise KeyboardInterrupt
        if self.calls == self.fail_on:
            raise CandidateFailed("training diverged at epoch 1")
        self.trained.append(architecture.digest)
        found = {**costs, "reconstruction_loss": 0.1 + number % 9949 / 9949}
        history = [{"epoch": 1, "train_loss": 1.0, "validation_loss": 0.9, "duration_s": 2.0}]
        timings = {"counting": 0.25, "training": 2.0}
        yield Findings("training", found, {"ssim": 0.5}, {}, False, history, timings)
        yield Findings("done", found, {"ssim": 0.5}, {}, False, history, timings)
