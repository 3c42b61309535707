"""The benchmark of scale: its clock, its stopwatch, and the studies that it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale_parts import MadeUp, Simulated, Stopwatch
from nas.objectives import DEFAULT_OBJECTIVES
from search_spaces.references import REFERENCES

ARCHITECTURE = REFERENCES["original"].resized(64)


def test_what_is_made_up_is_what_an_evaluator_finds() -> None:
    found = list(MadeUp(epochs=3)(ARCHITECTURE))
    assert [one.step for one in found] == ["static", "device", *["training"] * 3, "done"]
    assert set(found[-1].objectives) == set(DEFAULT_OBJECTIVES)
    assert [len(one.history) for one in found] == [0, 0, 1, 2, 3, 3]
    losses = [epoch["reconstruction_loss"] for epoch in found[-1].history]
    assert losses == sorted(losses, reverse=True)
    assert found == list(MadeUp(epochs=3)(ARCHITECTURE))


def test_workers_evaluate_at_the_same_time_on_the_clock() -> None:
    crew = Simulated(2, trial_s=700.0, steps=7, evaluate=MadeUp(epochs=3))
    real, begun = time.perf_counter(), crew.now()
    numbers: list[int] = []
    for number in range(2):
        crew.start(number, ARCHITECTURE)
    while len(numbers) < 2:
        event = crew.next()
        if event.kind == "found":
            crew.answer(event.number, go_on=True)
        else:
            assert event.kind == "ended"
            numbers.append(event.number)
    assert numbers == [0, 1]
    assert crew.busy_s == pytest.approx(2 * 700)  # six findings and the end
    gone = crew.now() - begun
    assert 700 <= gone <= 700 + time.perf_counter() - real


def test_an_evaluation_that_is_not_to_go_on_ends_at_once() -> None:
    crew = Simulated(1, trial_s=700.0, steps=7, evaluate=MadeUp(epochs=3))
    crew.start(7, ARCHITECTURE)
    assert crew.next().kind == "found"
    crew.answer(7, go_on=False)
    before = crew.busy_s
    assert crew.next().kind == "ended"
    assert crew.busy_s == before


def test_the_stopwatch_tells_methods_apart() -> None:
    watch = Stopwatch()
    timed = watch.timing("rest", "a b", split="splitting")
    assert timed.split() == ["a", "b"]
    assert timed.upper() == "A B"
    assert set(watch.spent_s) == {"splitting", "rest"}
    assert min(watch.spent_s.values()) > 0


def test_a_study_grows_and_tells_what_each_part_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "MARKS", (4, 8))
    monkeypatch.setattr(scale, "WINDOW", 2)
    scale.grow(scale.Setting(tmp_path, None, trials=8, workers=2, trial_s=1.0, epochs=1))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip()[0].isdigit() and "in" not in line]
    assert [row[0] for row in rows] == ["4", "8"]
    for row in rows:
        *parts, total, cpu, memory = map(float, row[1:])
        assert sum(parts) == pytest.approx(total, abs=0.05)
        assert cpu > 0
        assert memory > 10


def test_every_stage_has_its_workers_and_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "STAGE", 3)
    monkeypatch.setattr(scale, "WORKERS", (1, 3))
    monkeypatch.setattr(scale, "LENGTHS_S", (1000.0,))
    scale.saturate(scale.Setting(tmp_path, None, trials=2, epochs=1))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-2:]]
    assert [(row[0], row[1]) for row in rows] == [("1000", "1"), ("1000", "3")]
    alone, three = (float(row[2]) for row in rows)
    assert three > alone
