"""When a study gives up, because its hard limits reject every candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL
from studies.config.study import StudyConfig
from studies.record.records import State, TrialRecord
from studies.run import limits
from studies.run.crew import Alone
from studies.run.limits import MAX_MEASURED_REJECTIONS, MAX_REJECTIONS, Rejections
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.evaluator import FakeEvaluator

ENVIRONMENT = {"data_fingerprint": "0" * 12, "device": "cpu", "torch_version": "2.13.0"}


class Costly(FakeEvaluator):
    """Changes what is known of each candidate by the number of candidates so far."""

    def __init__(self, change: Callable[[int, Findings], Findings]) -> None:
        super().__init__()
        self._change = change

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            yield self._change(self.calls, findings)


def driven(root: Path, limit: dict[str, float], trials: int, evaluator: Costly) -> Runner[Alone]:
    """Run a study with these limits; return its runner."""
    asked = StudyConfig.model_validate(
        {
            "name": "s",
            "space": "quickstart",
            "objectives": ["reconstruction_loss", "params"],
            "limits": limit,
            "search": {"sampler": "random", "trials": trials},
        }
    )
    space, store = asked.load_space(), StudyStore(root / "s")
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        runner = Runner(asked, space, store, Alone(evaluator))
        runner.run()
    return runner


def test_candidates_rejected_by_prediction_alone_are_reported_with_their_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predicted(calls: int, findings: Findings) -> Findings:
        return replace(findings, metrics={"latency_ms_at_least": 20.0 + calls})

    monkeypatch.setattr(limits, "MAX_REJECTIONS", 5)
    runner = driven(tmp_path, {"latency_ms": 11, "params": 1e9}, 6, Costly(predicted))
    smallest = min(
        trial.objectives["params"] for trial in runner.store.record().trials[2:]
    )  # the two references come first: they are calls 1 and 2
    assert runner.gave_up == (
        "limits: the last 5 candidates were all over latency_ms 11, params 1000000000; the "
        f"smallest values among them are latency_ms 23 (predicted), params {smallest:.0f}: raise "
        "the limits or choose another space"
    )


def test_a_measured_value_is_reported_without_a_word_about_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(calls: int, findings: Findings) -> Findings:
        return replace(
            findings,
            objectives={**findings.objectives, "latency_ms": 20.0 + calls},
            metrics={"latency_ms_at_least": 5.0},
        )

    monkeypatch.setattr(limits, "MAX_MEASURED_REJECTIONS", 4)
    runner = driven(tmp_path, {"latency_ms": 11}, 6, Costly(measured))
    assert "the last 4 candidates" in (runner.gave_up or "")
    assert "the smallest values among them are latency_ms 23: raise" in (runner.gave_up or "")


def test_only_rejections_in_a_row_end_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def every_third(calls: int, findings: Findings) -> Findings:
        params = 1.0 if calls % 3 == 0 else 100.0
        return replace(findings, objectives={**findings.objectives, "params": params})

    monkeypatch.setattr(limits, "MAX_REJECTIONS", 3)
    runner = driven(tmp_path, {"params": 50}, 4, Costly(every_third))
    states = [trial.state for trial in runner.store.record().trials if not trial.reference]
    assert states == ["complete", *["rejected", "rejected", "complete"] * 3]
    assert runner.gave_up is None


def trial(state: State, objectives: dict[str, float], reference: str | None = None) -> TrialRecord:
    return TrialRecord(
        2, state, "0" * 12, ORIGINAL, reference=reference, findings=Findings(objectives=objectives)
    )


def counted(
    row: Rejections,
    times: int,
    state: State,
    objectives: dict[str, float],
    reference: str | None = None,
) -> str | None:
    for _ in range(times):
        row.count(trial(state, objectives, reference))
    return row.hopeless()


def test_a_study_ends_after_300_candidates_over_a_limit_in_a_row() -> None:
    assert (MAX_REJECTIONS, MAX_MEASURED_REJECTIONS) == (300, 20)
    row = Rejections({"params": 200, "latency_ms": 4})
    assert counted(row, 298, "rejected", {"params": 300.0}) is None
    assert counted(row, 1, "rejected", {"params": 250.0}) is None
    told = counted(row, 1, "rejected", {"params": 400.0})
    assert told is not None
    assert told.startswith("limits: the last 300 candidates were all over params 200, latency_ms 4")
    assert "the smallest values among them are params 250: raise the limits" in told


def test_after_20_that_had_to_be_measured_it_ends_sooner() -> None:
    row = Rejections({"params": 200, "latency_ms": 4})
    assert counted(row, 100, "rejected", {"params": 300.0}) is None
    assert counted(row, 19, "rejected", {"params": 100.0, "latency_ms": 9.0}) is None
    told = counted(row, 1, "rejected", {"params": 150.0, "latency_ms": 8.0})
    assert told is not None
    assert "the last 120 candidates" in told
    assert "the smallest values among them are params 100, latency_ms 8:" in told


@pytest.mark.parametrize("state", ["complete", "failed", "stopped"])
def test_a_candidate_that_was_trained_begins_the_count_anew(state: State) -> None:
    row = Rejections({"params": 200})
    assert counted(row, 299, "rejected", {"params": 300.0}) is None
    assert counted(row, 1, state, {"params": 100.0}) is None
    assert counted(row, 299, "rejected", {"params": 300.0}) is None
    assert counted(row, 1, "rejected", {"params": 300.0}) is not None


def test_references_and_running_trials_neither_count_nor_begin_the_count_anew() -> None:
    row = Rejections({"params": 200})
    assert counted(row, 299, "rejected", {"params": 300.0}) is None
    assert counted(row, 5, "complete", {"params": 300.0}, "original") is None
    assert counted(row, 5, "running", {"params": 300.0}) is None
    assert counted(row, 1, "rejected", {"params": 300.0}) is not None


def test_the_message_names_no_values_where_none_are_known() -> None:
    unknown = Rejections({"latency_ms": 5})  # what was rejected had another limit, changed since
    assert counted(unknown, MAX_REJECTIONS, "rejected", {"params": 300.0}) == (
        "limits: the last 300 candidates were all over latency_ms 5: raise the limits or choose "
        "another space"
    )
    assert counted(Rejections({}), MAX_REJECTIONS, "rejected", {"params": 300.0}) == (
        "limits: the last 300 candidates were all rejected: raise the limits or choose another "
        "space"
    )
