"""Hard limits: which candidates miss them, by how much, and when they leave too little."""

from __future__ import annotations

import pytest

from nas.evaluate import Findings
from search_spaces.references import ORIGINAL
from studies.record.records import State, TrialRecord
from studies.run.limits import MAX_MEASURED_REJECTIONS, MAX_REJECTIONS, Limits


def trial(state: State, objectives: dict[str, float], reference: str | None = None) -> TrialRecord:
    return TrialRecord(2, state, "0" * 12, ORIGINAL, reference=reference, objectives=objectives)


def counted(
    limits: Limits,
    times: int,
    state: State,
    objectives: dict[str, float],
    reference: str | None = None,
) -> str | None:
    for _ in range(times):
        limits.count(trial(state, objectives, reference))
    return limits.hopeless()


def test_a_limit_is_missed_by_its_share() -> None:
    limits = Limits({"params": 200, "macs": 1000})
    excess = limits.violations({"params": 300, "macs": 900, "latency_ms": 5}, {})
    assert excess == pytest.approx({"params": 0.5, "macs": -0.1})


def test_what_is_not_known_yet_misses_nothing() -> None:
    limits = Limits({"params": 200, "latency_ms": 4})
    assert limits.violations({"params": 100}, {}) == {"params": -0.5}
    assert limits.violations({"params": 100}, {"latency_ms_at_least": 0.0}) == {"params": -0.5}
    assert limits.missed(Findings("static", {"params": 100})) is None


def test_a_latency_counts_as_predicted_until_it_is_measured() -> None:
    limits, metrics = Limits({"latency_ms": 4}), {"latency_ms_at_least": 6.0}
    assert limits.violations({}, metrics) == {"latency_ms": 0.5}
    assert limits.violations({"latency_ms": 3.0}, metrics) == {"latency_ms": -0.25}


@pytest.mark.parametrize(
    ("objectives", "metrics", "told"),
    [
        ({"params": 200, "latency_ms": 4.0}, {}, None),  # at the limit is within it
        ({"params": 300}, {}, "params 300 is over the limit 200"),
        ({"params": 100, "latency_ms": 5.0}, {}, "latency_ms 5 is over the limit 4"),
        ({"params": 300, "latency_ms": 5.0}, {}, "params 300 is over the limit 200"),
        (
            {"params": 100},
            {"latency_ms_at_least": 6.5},
            "latency_ms is predicted to be 6.5 at least, over the limit 4",
        ),
        ({"params": 100, "latency_ms": 3.0}, {"latency_ms_at_least": 6.5}, None),
    ],
)
def test_the_limit_that_is_missed_is_told(
    objectives: dict[str, float], metrics: dict[str, float], told: str | None
) -> None:
    limits = Limits({"params": 200, "latency_ms": 4})
    assert limits.missed(Findings("device", objectives, metrics)) == told


def test_without_limits_nothing_is_missed() -> None:
    assert Limits({}).missed(Findings("static", {"params": 1e9}, {})) is None


def test_a_study_ends_after_300_candidates_over_a_limit_in_a_row() -> None:
    assert (MAX_REJECTIONS, MAX_MEASURED_REJECTIONS) == (300, 20)
    limits = Limits({"params": 200, "latency_ms": 4})
    assert counted(limits, 298, "rejected", {"params": 300.0}) is None
    assert counted(limits, 1, "rejected", {"params": 250.0}) is None
    told = counted(limits, 1, "rejected", {"params": 400.0})
    assert told is not None
    assert told.startswith("limits: the last 300 candidates were all over params 200, latency_ms 4")
    assert "the smallest values among them are params 250: raise the limits" in told


def test_after_20_that_had_to_be_measured_it_ends_sooner() -> None:
    limits = Limits({"params": 200, "latency_ms": 4})
    assert counted(limits, 100, "rejected", {"params": 300.0}) is None
    assert counted(limits, 19, "rejected", {"params": 100.0, "latency_ms": 9.0}) is None
    told = counted(limits, 1, "rejected", {"params": 150.0, "latency_ms": 8.0})
    assert told is not None
    assert "the last 120 candidates" in told
    assert "the smallest values among them are params 100, latency_ms 8:" in told


@pytest.mark.parametrize("state", ["complete", "failed", "stopped"])
def test_a_candidate_that_was_trained_begins_the_count_anew(state: State) -> None:
    limits = Limits({"params": 200})
    assert counted(limits, 299, "rejected", {"params": 300.0}) is None
    assert counted(limits, 1, state, {"params": 100.0}) is None
    assert counted(limits, 299, "rejected", {"params": 300.0}) is None
    assert counted(limits, 1, "rejected", {"params": 300.0}) is not None


def test_references_and_running_trials_neither_count_nor_begin_the_count_anew() -> None:
    limits = Limits({"params": 200})
    assert counted(limits, 299, "rejected", {"params": 300.0}) is None
    assert counted(limits, 5, "complete", {"params": 300.0}, "original") is None
    assert counted(limits, 5, "running", {"params": 300.0}) is None
    assert counted(limits, 1, "rejected", {"params": 300.0}) is not None
