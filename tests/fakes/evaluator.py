"""Evaluators that take no time: objectives are derived from the architecture's digest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from search_spaces.architecture import Architecture
from tests.fakes.findings import epoch, metrics

EPOCHS = 9
"""Epochs for which a `Learner` trains."""


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
        counted = Findings("static", costs, timings_s={"counting": 0.25})
        yield counted
        if self.calls == self.interrupt_on:
            raise KeyboardInterrupt
        if self.calls == self.fail_on:
            raise CandidateFailed("training diverged at epoch 1")
        self.trained.append(architecture.digest)
        loss = 0.1 + number % 9949 / 9949
        trained = replace(
            counted,
            step="training",
            objectives={**costs, "reconstruction_loss": loss},
            metrics=metrics(loss),
            history=[epoch(1, loss, duration_s=2.0)],
            timings_s={**counted.timings_s, "training": 2.0},
        )
        yield trained
        yield replace(trained, step="done")


class Learner(FakeEvaluator):
    """Trains for nine epochs; the loss falls towards a value made up from the digest.

    `checkpoints` remembers the epochs done by digest, as files would; `interrupt_at` is the number
    of epochs in all after which the process ends.
    """

    def __init__(self, checkpoints: dict[str, int], interrupt_at: int | None = None) -> None:
        super().__init__()
        self.checkpoints, self.interrupt_at = checkpoints, interrupt_at
        self.measured: list[str] = []

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        digest = architecture.digest
        first, *_ = super().__call__(architecture)
        yield known or first
        if known is None:
            self.measured.append(digest)
            yield replace(first, step="device")
        history: list[dict[str, float]] = []
        final = 0.1 + int(digest, 16) % 9949 / 9949
        for number in range(1, EPOCHS + 1):
            loss = final * (1 + 1 / number)
            history = [*history, epoch(number, loss)]
            if number > self.checkpoints.get(digest, 0):
                if sum(self.checkpoints.values()) == self.interrupt_at:
                    raise KeyboardInterrupt
                self.checkpoints[digest] = number
            known_now = {**first.objectives, "reconstruction_loss": loss}
            yield Findings("training", known_now, history=history)
        yield Findings("done", known_now, history=history)
