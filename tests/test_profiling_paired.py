"""Measuring beside a reference and its twin, on a clock that the test winds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from profiling import latency
from profiling.intervals import Interval, block_length, median_interval
from profiling.latency import LatencyConfig
from profiling.load import Load, LoadWatch
from profiling.paired import PairedLatency, compare_latency
from profiling.timing import Sample, Timer

QUICK = LatencyConfig(min_rounds=8, max_rounds=16, warmup_window=2, min_sample_ms=0)
QUIET = Load(span_s=1.0, others=0.0, stolen=0.0)


class Model(nn.Module):
    """Tells the clock how long it takes; copies take longer by `copies_by`."""

    def __init__(self, clock: Clock, times_ms: list[float], copies_by: float = 1.0) -> None:
        super().__init__()
        self.clock, self.times_ms, self.copies_by = clock, times_ms, copies_by
        self.times = cycle(times_ms)

    def forward(self, image: Tensor) -> Tensor:
        self.clock.now += next(self.times)
        return image

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return Model(self.clock, [time * self.copies_by for time in self.times_ms])


class Clock:
    """Time in ms, which models move on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *loads: Load) -> None:
        self.now, self.measurements = 0.0, 0
        left = cycle(loads or (QUIET,))

        @contextmanager
        def running(watch: LoadWatch) -> Iterator[None]:
            self.measurements += 1
            watch.load = next(left)
            yield

        monkeypatch.setattr(LoadWatch, "running", running)
        monkeypatch.setattr(latency, "timer_for", lambda device: self.timer())

    def timer(self) -> Timer:
        def time(run: Callable[[], Any]) -> Sample:
            before = self.now
            run()
            return Sample(self.now - before, self.now - before)

        return time


def measured(candidate: Model, reference: Model, **settings: Any) -> PairedLatency:
    config = QUICK.model_copy(update=settings)
    return compare_latency(candidate, reference, torch.rand(1, 2), config, digests=("c", "r"))


def test_a_steady_pair_is_quiet_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0]))
    assert (found.ratio.median, found.twin_ratio.median) == (3.0, 1.0)
    assert (found.contended, found.attempts, clock.measurements) == (False, 1, 1)
    assert len(found.candidate.samples) == QUICK.min_rounds


def test_rounds_go_on_until_the_ratio_is_precise_not_the_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both models drift alike: their times spread widely, their ratio not at all."""
    clock = Clock(monkeypatch)
    drift = [1.0, 1.05, 1.1, 1.15, 1.2]
    alike = measured(Model(clock, [6 * d for d in drift]), Model(clock, [2 * d for d in drift]))
    assert alike.candidate.interval_ms.half_width(alike.candidate.median_ms) > QUICK.precision
    assert len(alike.candidate.samples) == QUICK.min_rounds
    apart = measured(Model(clock, [6 * d for d in drift]), Model(clock, [2.0]))
    assert len(apart.candidate.samples) == QUICK.max_rounds


def test_a_twin_that_differs_is_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0], copies_by=1.05))
    assert found.contention == ("a copy of the reference took 1.050 to 1.050 of its time",)
    assert (found.attempts, clock.measurements) == (QUICK.attempts, QUICK.attempts)
    slight = measured(Model(clock, [6.0]), Model(clock, [2.0], copies_by=1.005))
    assert not slight.contended


def test_a_contended_measurement_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Load(span_s=1.0, others=0.5, stolen=0.0)
    clock = Clock(monkeypatch, busy, QUIET)
    entered = []

    @contextmanager
    def alone() -> Iterator[None]:
        entered.append(clock.measurements)
        yield

    found = compare_latency(
        Model(clock, [6.0]), Model(clock, [2.0]), torch.rand(1, 2), QUICK, alone=alone
    )
    assert (found.attempts, found.contended) == (2, False)
    assert entered == [0, 1]


def test_if_none_is_quiet_the_narrowest_is_kept_and_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stolen = Load(span_s=1.0, others=0.0, stolen=0.2)
    clock = Clock(monkeypatch, stolen)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0]))
    assert found.contention == ("the hypervisor took 20% of the core time",)
    assert found.attempts == QUICK.attempts


def test_what_was_timed_is_kept_apart_from_where(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    written = measured(Model(clock, [6.0]), Model(clock, [2.0])).to_dict()
    assert written["subjects"]["candidate"]["digest"] == "c"
    assert written["subjects"]["twin"]["digest"] == "r"
    assert written["subjects"]["candidate"]["backend"] == "eager"
    assert written["samples_ms"]["reference"] == [2.0] * QUICK.min_rounds
    assert written["environment"]["threads"] == 1
    assert copy.deepcopy(written) == written  # plain types


def test_short_spans_tell_nothing_of_the_load() -> None:
    assert Load(span_s=0.1, others=1.0, stolen=1.0).signs == ()
    assert len(Load(span_s=1.0, others=0.2, stolen=0.2).signs) == 2


def test_the_load_of_others_is_seen_and_ones_own_is_not() -> None:
    watch = LoadWatch()
    with watch.running():
        sum(range(10_000_000))
    assert watch.load is not None
    assert watch.load.span_s > 0
    assert 0 <= watch.load.others <= 1


def test_intervals_exclude_what_is_clear_of_them() -> None:
    assert Interval(1.02, 1.05).excludes(1.0, margin=0.01)
    assert not Interval(1.005, 1.05).excludes(1.0, margin=0.01)
    assert Interval(0.9, 0.98).excludes(1.0, margin=0.01)
    assert not Interval(0.9, 1.1).excludes(1.0)


def autocorrelated(rng: np.random.Generator, count: int, rho: float) -> list[float]:
    noise, values = rng.normal(size=count), [rng.normal() / np.sqrt(1 - rho**2)]
    for step in noise[1:]:
        values.append(rho * values[-1] + step)
    return [100 + value for value in values]


def test_blocks_are_drawn_only_where_neighbours_resemble_each_other() -> None:
    rng = np.random.default_rng(0)
    independent = [block_length(autocorrelated(rng, 60, 0.0)) for _ in range(200)]
    dependent = [block_length(autocorrelated(rng, 60, 0.7)) for _ in range(200)]
    assert sum(length > 1 for length in independent) < 20
    assert sum(length == 4 for length in dependent) > 190


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.92), (0.6, 0.80)])
def test_intervals_cover_the_true_median(rho: float, least: float) -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        low, high = median_interval(autocorrelated(rng, 60, rho), seed)
        covered += low <= 100 <= high
    assert covered / 200 >= least
