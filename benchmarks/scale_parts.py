"""Parts of `benchmarks.scale`: a made-up evaluator, workers and clock, and a stopwatch.

Only the driver's own work takes real time: the time of evaluations is added to the clock.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from nas.evaluate import CandidateFailed
from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE
from search_spaces.architecture import Architecture
from studies.run.crew import Evaluate, TrialEvent

FAILING = 41
"""One evaluation in this many fails, so that reports have failures to list."""

ANCHOR_MS = 40.0
"""The made-up latency of `original`."""


class MadeUp:
    """An evaluator that takes no time: costs by rough formulas, a loss that falls with them, noise.

    The findings are as many and as large as those of a real evaluation.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        """Yield findings as a real evaluator does."""
        dice = int(architecture.digest, 16)
        found = Findings("static", _costs(architecture), timings_s={"counting": 0.01})
        yield found
        found = _measured(found, 1 + 0.3 * _share(dice, 997))
        yield found
        if dice % FAILING == 0 and "latency_ms" in found.objectives:
            raise CandidateFailed(f"diverged in epoch {1 + dice % self.epochs}: loss is NaN")
        loss = 0.62 - 0.034 * math.log(found.objectives["macs"] / 1e5) + 0.1 * _share(dice, 9973)
        for epoch in range(1, self.epochs + 1):
            found = _trained(found, epoch, loss + 0.3 * math.exp(-0.7 * epoch))
            yield found
        yield replace(found, step="done")


class Simulated:
    """A crew of workers that evaluate in simulated time, each trial taking `trial_s`.

    A trial has one step per findings and one for its end (`steps`). The driver's time is real and
    passes while workers are busy. `busy_s` is the total time that all workers spent evaluating;
    during the rest of `size` x elapsed time they waited for the driver.
    """

    apart = True

    def __init__(self, size: int, trial_s: float, steps: int, evaluate: Evaluate) -> None:
        self.size, self._steps, self._evaluate = size, steps, evaluate
        self._step_s = trial_s / steps
        self._due: list[tuple[float, int]] = []
        self._streams: dict[int, Iterator[Findings]] = {}
        self._skipped_s = self.busy_s = 0.0

    def become(self, size: int, trial_s: float) -> None:
        """Have another number of workers, and trials of another length, from now on."""
        self.size, self._step_s = size, trial_s / self._steps

    def now(self) -> float:
        """Seconds on the clock: those that passed, and those that were skipped."""
        return time.perf_counter() + self._skipped_s

    def start(self, number: int, architecture: Architecture, known: Findings | None = None) -> None:
        """Start an evaluation."""
        self._streams[number] = self._evaluate(architecture, known)
        self._work(number)

    def next(self) -> TrialEvent:
        """Advance the clock to the next event of a worker, and return the event."""
        due, number = heapq.heappop(self._due)
        self._skipped_s += max(0.0, due - self.now())
        try:
            return TrialEvent(number, "found", next(self._streams[number]))
        except StopIteration:
            return TrialEvent(number, "ended")
        except CandidateFailed as failure:
            return TrialEvent(number, "failed", reason=str(failure))

    def answer(self, number: int, go_on: bool) -> None:
        """Continue or end a worker's trial, from now."""
        if go_on:
            self._work(number)
        else:
            self._streams[number] = iter(())
            heapq.heappush(self._due, (self.now(), number))

    def _work(self, number: int) -> None:
        self.busy_s += self._step_s
        heapq.heappush(self._due, (self.now() + self._step_s, number))


class Stopwatch:
    """A stopwatch that adds up the seconds spent in the methods of objects, by label."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = defaultdict(float)

    def timing(self, label: str, inner: Any, **labels: str) -> Any:
        """Return a stand-in for `inner` whose methods are timed, as `label` or by their names."""
        return _Timed(self, label, inner, labels)

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time added to `label`."""

        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.spent_s[label] += time.perf_counter() - start

        return call


class _Timed:
    def __init__(self, watch: Stopwatch, label: str, inner: Any, labels: dict[str, str]) -> None:
        self._watch, self._label, self._inner, self._labels = watch, label, inner, labels

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        timed = self._watch.timed(self._labels.get(name, self._label), found)
        setattr(self, name, timed)
        return timed


def _costs(architecture: Architecture) -> dict[str, float]:
    weights, macs = 0.0, 0.0
    channels, size, _ = architecture.image_shape
    for stage in architecture.encoder.stages:
        share = 9 if stage.convolution == "standard" else 1.5
        added = share * stage.layers * (stage.growth_rate or stage.width) * (channels + stage.width)
        weights, macs = weights + added, macs + added * size**2
        channels, size = stage.width, (size + 1) // 2
    latent = 3 * channels * size**2 * architecture.latent_size
    return {"params": round(weights + latent), "macs": round(macs + latent)}


def _measured(found: Findings, speed: float) -> Findings:
    latency_ms = speed * found.objectives["macs"] / 3e7
    over = latency_ms / ANCHOR_MS
    metrics = {
        "latency_median_ms": latency_ms,
        "latency_spread": 0.03,
        "latency_attempts": 1.0,
        "latency_over_original": over,
        "latency_over_original_low": 0.97 * over,
        "latency_over_original_high": 1.04 * over,
    }
    return Findings(
        "device",
        {**found.objectives, "latency_ms": latency_ms},
        metrics,
        {"latency_ms": (0.97 * latency_ms, 1.04 * latency_ms)},
        contended=speed > 1.28,
        timings_s={**found.timings_s, "latency": 2.0},
    )


def _trained(found: Findings, epoch: int, loss: float) -> Findings:
    epoch_record = {
        "epoch": float(epoch),
        "train_loss": loss + 0.02,
        "validation_loss": loss + 0.03,
        TRAINED_OBJECTIVE: loss,
        "duration_s": found.objectives["macs"] / 2e7,
    }
    quality = {"total_loss": loss + 0.03, "l1": loss / 4, "kl": 30.0}
    quality |= {"ssim": 1 - 0.8 * loss, "ms_ssim": 1 - 0.6 * loss, "psnr_db": 30 - 26 * loss}
    spent_s = found.timings_s.get("training", 0.0) + epoch_record["duration_s"]
    return replace(
        found,
        step="training",
        objectives={**found.objectives, TRAINED_OBJECTIVE: loss},
        metrics={**found.metrics, **quality},
        history=[*found.history, epoch_record],
        timings_s={**found.timings_s, "training": spent_s},
    )


def _share(dice: int, modulus: int) -> float:
    return dice % modulus / modulus
