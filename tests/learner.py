"""Studies of an evaluator that learns for nine epochs, without time or files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from nas.evaluate import Findings
from search_spaces.architecture import Architecture
from studies.config.study import StudyConfig
from tests.fake_evaluator import FakeEvaluator
from tests.small_studies import config

EPOCHS = 9


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
        for epoch in range(1, EPOCHS + 1):
            loss = final * (1 + 1 / epoch)
            history = [*history, {"epoch": epoch, "reconstruction_loss": loss, "duration_s": 1.0}]
            if epoch > self.checkpoints.get(digest, 0):
                if sum(self.checkpoints.values()) == self.interrupt_at:
                    raise KeyboardInterrupt
                self.checkpoints[digest] = epoch
            known_now = {**first.objectives, "reconstruction_loss": loss}
            yield Findings("training", known_now, history=history)
        yield Findings("done", known_now, history=history)


def asked(**changes: Any) -> StudyConfig:
    search = {"sampler": "random", "trials": 20, "early_stopping": {}}
    return config(**{"search": search, "training": {"epochs": EPOCHS}, **changes})
