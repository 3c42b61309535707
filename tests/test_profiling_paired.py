"""Measurement beside a reference and its twin, with a clock that the test advances."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from profiling import latency, quiet
from profiling.intervals import Interval, block_length, median_interval
from profiling.latency import LatencyConfig
from profiling.load import Load, LoadWatch
from profiling.paired import PairedLatency, compare_latency
from profiling.quiet import QuietSpeed
from profiling.timing import Sample, Timer

QUICK = LatencyConfig(min_rounds=8, max_rounds=16, warmup_window=2, min_sample_ms=0, priming_ms=0)
QUIET = Load(span_s=1.0, others=0.0, stolen=0.0)


class Model(nn.Module):
    """Tells the clock how long it takes; from the second on, copies take longer by `copies_by`."""

    def __init__(self, clock: Clock, times_ms: list[float], copies_by: float = 1.0) -> None:
        super().__init__()
        self.clock, self.times_ms, self.copies_by = clock, times_ms, copies_by
        self.times, self.copies = cycle(times_ms), 0

    def forward(self, image: Tensor) -> Tensor:
        self.clock.now += next(self.times)
        return image

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        self.copies += 1
        slower = self.copies_by if self.copies > 1 else 1.0
        return Model(self.clock, [time * slower for time in self.times_ms])


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
    drift = [1.0, 1.03, 1.0, 1.03, 1.03]
    alike = measured(Model(clock, [6 * d for d in drift]), Model(clock, [2 * d for d in drift]))
    assert alike.candidate.interval_ms.half_width(alike.candidate.median_ms) > 0.01
    assert len(alike.candidate.samples) == QUICK.min_rounds
    drift = [1.0, 1.05, 1.1, 1.15, 1.2]
    apart = measured(Model(clock, [6 * d for d in drift]), Model(clock, [2.0]))
    assert len(apart.candidate.samples) == QUICK.max_rounds


def test_only_rounds_at_the_quiet_speed_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """In slow rounds both take longer, the candidate by more: their ratio is another."""
    clock = Clock(monkeypatch)
    slow = [False, True, True, False, True]
    candidate = Model(clock, [9.6 if s else 6.0 for s in slow])
    found = measured(candidate, Model(clock, [2.4 if s else 2.0 for s in slow]), max_rounds=40)
    assert found.ratio.median == 3.0
    assert not found.contended
    assert found.interleaved.quiet_count == len(found.candidate.samples) >= QUICK.min_rounds
    assert len(found.interleaved.taken["candidate"].samples) > 2 * QUICK.min_rounds


def test_a_machine_that_was_faster_before_is_seen_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock, path = Clock(monkeypatch), tmp_path / "speeds" / "original.json"

    def run(slower: float) -> PairedLatency:
        models = Model(clock, [6.0 * slower]), Model(clock, [2.0 * slower])
        return compare_latency(*models, torch.rand(1, 2), QUICK, quiet=QuietSpeed(path))

    assert not run(1.2).contended  # nothing better is known yet
    assert not run(1.0).contended
    slow = run(1.2)
    assert slow.contention == (
        "0 of 16 rounds ran at the quiet speed, at which the reference takes 2 ms",
    )
    assert slow.attempts == QUICK.attempts
    monkeypatch.setattr(quiet, "REMEMBERED_S", 0.0)
    assert not run(1.2).contended  # it has become slower for good


def test_a_record_of_speeds_that_cannot_be_read_or_written_is_done_without(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.json").write_text("{nonsense")
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "broken.json", tmp_path / "file" / "x.json"):
        speed = QuietSpeed(path)
        assert speed.best_ms == float("inf")
        speed.note([2.0] * 9)
        assert QuietSpeed(path).best_ms in (2.0, float("inf"))
    assert QuietSpeed(tmp_path / "broken.json").best_ms == 2.0
    speed = QuietSpeed()
    speed.note([3.0] * 7)  # too few to tell
    assert speed.best_ms == float("inf")


def test_too_few_rounds_to_tell_the_quiet_speed_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0]), max_rounds=5)
    assert found.contention == ("5 rounds are too few to tell the quiet speed",)
    assert found.interleaved.to_dict()["quiet_ms"] is None


def test_a_twin_that_differs_is_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0], copies_by=1.05))
    assert found.contention == ("a copy of the reference took 1.050 to 1.050 of it",)
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


def test_if_none_is_quiet_the_best_is_kept_and_marked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stolen = Load(span_s=1.0, others=0.0, stolen=0.2)
    clock = Clock(monkeypatch, stolen)
    found = measured(Model(clock, [6.0]), Model(clock, [2.0]))
    assert found.contention == ("the hypervisor took 20% of the core time",)
    assert found.attempts == QUICK.attempts


def test_what_was_timed_is_kept_apart_from_where(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    written = measured(Model(clock, [6.0]), Model(clock, [2.0])).interleaved.to_dict()
    assert written["subjects"]["candidate"]["digest"] == "c"
    assert written["subjects"]["twin"]["digest"] == "r"
    assert written["subjects"]["candidate"]["backend"] == "eager"
    assert written["samples"]["reference"] == [[2.0, 2.0, None]] * QUICK.min_rounds
    assert written["rounds"] == [True] * QUICK.min_rounds
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
