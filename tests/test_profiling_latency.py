"""Latency measurement with a clock that the test advances."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import cycle, groupby
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from profiling import latency
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from profiling.intervals import median_interval, relative_iqr
from profiling.latency import (
    Latency,
    LatencyConfig,
    TimedModel,
    batches_of,
    measure_latency,
    paired_ratio,
)
from profiling.timing import Sample, Timer

QUICK = LatencyConfig(min_rounds=4, max_rounds=9, warmup_window=2, min_sample_ms=0, priming_ms=0)


class FakeClock:
    """A timer that runs the call, notes whose it was, and answers with scripted times in ms."""

    def __init__(self, **times_ms: list[float]) -> None:
        self.times: dict[str, Iterator[float]] = {k: cycle(v) for k, v in times_ms.items()}
        self.log: list[str] = []

    def model(self, name: str) -> Callable[[Tensor], None]:
        return lambda image: self.log.append(name)

    def timer_for(self, device: torch.device) -> Timer:
        return self.time

    def time(self, run: Callable[[], Any]) -> Sample:
        before = len(self.log)
        run()
        calls = self.log[before:]
        wall = sum(next(self.times[name]) for name in calls)
        return Sample(wall, wall)


def run(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, config: LatencyConfig
) -> dict[str, Latency]:
    monkeypatch.setattr(latency, "timer_for", clock.timer_for)
    models = {name: clock.model(name) for name in clock.times}
    return measure_latency(models, torch.rand(1, 2), config)


def a_latency(walls: list[float], cpus: list[float], threads: int = 1) -> Latency:
    samples = tuple(Sample(wall, cpu) for wall, cpu in zip(walls, cpus, strict=True))
    return Latency(TimedModel("a", ((1,),), "float32", threads, 1), fingerprint(), samples)


def test_steady_models_stop_at_the_fewest_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(FakeClock(a=[2.0], b=[6.0]), monkeypatch, QUICK)
    assert result["a"].samples_ms == (2.0,) * 4
    assert result["a"].interval_ms == (2.0, 2.0)
    assert not result["a"].contended
    assert paired_ratio(result["b"], result["a"]).median == 3.0


def test_a_noisy_model_goes_on_to_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(FakeClock(a=[2.0], b=[1.0, 9.0, 5.0]), monkeypatch, QUICK)
    assert len(result["a"].samples) == len(result["b"].samples) == 9
    assert result["b"].contended


def test_the_time_cap_ends_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUICK.model_copy(update={"max_s": 0.11})
    result = run(FakeClock(a=[10.0, 20.0]), monkeypatch, config)
    assert len(result["a"].samples) == 4  # 2 x (10 + 20 + 10 + 20) ms


def test_warm_up_ends_when_two_windows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(FakeClock(a=[90.0, 50.0, 20.0, 10.0, *[5.0] * 100]), monkeypatch, QUICK)
    assert result["a"].warmup_ms == (90.0, 50.0, 20.0, 10.0, 5.0, 5.0, 5.0, 5.0)
    assert result["a"].median_ms == 5.0


def test_warm_up_gives_up_on_a_model_that_never_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUICK.model_copy(update={"max_warmup": 6})
    result = run(FakeClock(a=[1.0, 1.0, 9.0, 9.0]), monkeypatch, config)
    assert len(result["a"].warmup_ms) == 6
    slow = QUICK.model_copy(update={"max_warmup_s": 0.015})
    result = run(FakeClock(a=[1.0, 1.0, 9.0, 9.0]), monkeypatch, slow)
    assert result["a"].warmup_ms == (1.0, 1.0, 9.0, 9.0)


@pytest.mark.parametrize(("priming_ms", "untimed"), [(0, (1, 1)), (6, (3, 1)), (13, (6, 2))])
def test_untimed_passes_precede_each_sample(
    monkeypatch: pytest.MonkeyPatch, priming_ms: float, untimed: tuple[int, int]
) -> None:
    clock, config = FakeClock(a=[2.0], b=[6.0]), QUICK.model_copy(update={"priming_ms": priming_ms})
    result = run(clock, monkeypatch, config)
    assert (result["a"].subject.primings, result["b"].subject.primings) == untimed
    warmups = sum(len(one.warmup_ms) for one in result.values())
    turns = [(name, len(list(passes))) for name, passes in groupby(clock.log[warmups:])]
    expected = dict(zip("ab", untimed, strict=True))
    # Two models in turns may follow each other across rounds: whole turns only.
    assert all(count % (expected[name] + 1) == 0 for name, count in turns)
    assert len(clock.log) - warmups == 4 * (sum(untimed) + 2)


def test_short_passes_are_repeated_within_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QUICK.model_copy(update={"min_sample_ms": 1.0})
    clock = FakeClock(a=[0.25])
    result = run(clock, monkeypatch, config)
    assert (result["a"].subject.repeats, result["a"].median_ms) == (4, 0.25)
    assert len(clock.log) == len(result["a"].warmup_ms) + 4 * (1 + 4)  # one is not timed


def test_every_round_times_each_model_once_in_changing_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock(a=[1.0], b=[1.0], c=[1.0])
    run(clock, monkeypatch, QUICK.model_copy(update={"min_rounds": 8}))
    taken = clock.log[-48::2]  # each twice: untimed, timed
    rounds = [tuple(taken[i : i + 3]) for i in range(0, 24, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len(set(rounds)) > 1


def test_progress_counts_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = FakeClock(a=[1.0]), list[tuple[int, int]]()
    monkeypatch.setattr(latency, "timer_for", clock.timer_for)
    measure_latency(
        {"a": clock.model("a")},
        torch.rand(1, 2),
        QUICK,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 9), (2, 9), (3, 9), (4, 9)]


def test_waiting_for_the_cpu_is_contention_at_one_thread_only() -> None:
    assert a_latency([1.0, 1.0], [1.0, 1.0]).contention == ()
    waited = a_latency([1.2, 1.2], [1.0, 1.0])
    assert waited.wall_over_cpu == pytest.approx(1.2)
    assert "1.20" in waited.contention[0]
    assert a_latency([1.2, 1.2], [1.0, 1.0], threads=2).wall_over_cpu is None


def test_a_wide_spread_is_contention() -> None:
    # Quartiles of 1..5 are 2 and 4, so the range is 2 over a median of 3.
    assert relative_iqr([1, 2, 3, 4, 5]) == pytest.approx(2 / 3)
    assert a_latency([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]).contention != ()


def test_intervals_surround_the_median_and_narrow_with_samples() -> None:
    few, many = median_interval([1, 2, 3, 4, 5]), median_interval([1, 2, 3, 4, 5] * 20)
    assert few.low <= many.low <= 3 <= many.high <= few.high
    assert few.half_width(3) == (few.high - few.low) / 6
    assert median_interval([1.0]).half_width(1.0) == float("inf")


def test_a_module_is_timed_in_inference_and_gets_its_state_back() -> None:
    seen = set()

    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))
            self.inner = nn.Dropout()

        def forward(self, image: Tensor) -> Tensor:
            state = (self.training, self.inner.training, gc.isenabled())
            seen.add((*state, torch.is_inference_mode_enabled(), torch.get_num_threads()))
            return torch.rand_like(image) + self.weight

    probe, threads = Probe(), torch.get_num_threads()
    probe.inner.eval()
    random_state = torch.get_rng_state()
    result = measure_latency({"probe": probe}, torch.zeros(1, 2), QUICK)
    assert seen == {(False, False, False, True, 1)}
    assert (probe.training, probe.inner.training, gc.isenabled()) == (True, False, True)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_state)
    assert result["probe"].environment.threads == 1
    assert result["probe"].subject.input_shapes == ((1, 2),)


def test_one_example_is_repeated_to_the_batch() -> None:
    config = QUICK.model_copy(update={"batch": 3})
    result = measure_latency({"a": nn.Linear(2, 2)}, torch.rand(1, 2), config)
    assert result["a"].subject.input_shapes == ((3, 2),)
    with pytest.raises(ProfilingError, match=r"shape \(0, 2\) has no items"):
        measure_latency({"a": nn.Linear(2, 2)}, torch.rand(0, 2), config)


def test_each_pass_takes_the_next_items_and_starts_again() -> None:
    seen: dict[str, list[list[float]]] = {"a": [], "b": []}
    models = {name: (lambda x, n=name: seen[n].append(x.flatten().tolist())) for name in seen}
    numbers = torch.arange(5.0).reshape(5, 1)  # two whole batches of 2; the fifth is left out
    config = QUICK.model_copy(update={"batch": 2})
    measure_latency(models, numbers, config)
    assert len(seen["a"]) > 4
    for passes in seen.values():
        assert passes == [[0, 1], [2, 3]] * (len(passes) // 2) + [[0, 1]] * (len(passes) % 2)


def test_a_shorter_argument_is_repeated() -> None:
    first, second = batches_of((torch.arange(4.0), torch.arange(3.0)), 2, torch.device("cpu"))
    assert [arg.tolist() for arg in first] == [[0, 1], [0, 1]]
    assert [arg.tolist() for arg in second] == [[2, 3], [2, 0]]
    (only,) = batches_of(torch.arange(3.0), 8, torch.device("cpu"))
    assert only[0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_nothing_to_measure_and_models_elsewhere_are_refused() -> None:
    with pytest.raises(ProfilingError, match="none given"):
        measure_latency({}, torch.rand(1, 2))
    with pytest.raises(ProfilingError, match=r"'a' is on meta.*\.to\('cpu'\)"):
        measure_latency({"a": nn.Linear(2, 2, device="meta")}, torch.rand(1, 2))


def test_config_refuses_unknown_keys_and_impossible_values() -> None:
    with pytest.raises(ValueError, match="thread"):
        LatencyConfig.model_validate({"thread": 1})
    with pytest.raises(ValueError, match="batch"):
        LatencyConfig(batch=0)
