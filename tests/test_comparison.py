"""How a trial compares with a reference: paired latencies, ties, domination."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nas.findings import Findings
from nas.objectives import dominates, select_objectives
from search_spaces.references import MODIFIED, ORIGINAL
from studies.record.comparison import compare, dominators
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import change_of, study_headline
from tests.fakes.records import with_findings

OBJECTIVES = select_objectives(["params", "latency_ms"])


def trial(number: int, params: float, ms: float, ratio: float, half: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="complete",
        digest=f"{number:012d}",
        architecture=ORIGINAL,
        findings=Findings(
            "done",
            objectives={"params": params, "latency_ms": ms},
            metrics={
                "latency_over_original": ratio,
                "latency_over_original_low": ratio - half,
                "latency_over_original_high": ratio + half,
            },
        ),
    )


def study(*found: TrialRecord, config: dict[str, object] | None = None) -> StudyRecord:
    original = replace(trial(0, 1000, 10.0, 1.0, 0.01), reference="original")
    modified = replace(trial(1, 900, 40.0, 4.0, 0.1), reference="modified", architecture=MODIFIED)
    trials = (original, modified, *found)
    return StudyRecord("s", OBJECTIVES, trials, config or {}, {}, Path())


def test_latency_is_compared_as_measured_in_turn_not_by_medians_taken_apart() -> None:
    fast = trial(2, 100, 2.0, 0.5, 0.02)  # the medians say 5x, taking turns said 2x
    compared = compare(study(fast), fast, study(fast).references["original"])
    assert compared.factors["latency_ms"] == pytest.approx(2)
    assert compared.factors["params"] == pytest.approx(10)
    assert compared.dominates


def test_against_the_other_reference_the_quotient_of_the_two_ratios_counts() -> None:
    fast = trial(2, 100, 2.0, 0.5, 0.02)
    compared = compare(study(fast), fast, study(fast).references["modified"])
    assert compared.factors["latency_ms"] == pytest.approx(8)


def test_within_the_interval_two_latencies_are_tied_and_nothing_is_dominated() -> None:
    close = trial(2, 1000, 9.9, 0.99, 0.05)
    compared = compare(study(close), close, study(close).references["original"])
    assert compared.tied("latency_ms")
    assert compared.better == 0
    assert not compared.dominates
    assert change_of(OBJECTIVES[1], compared) == "no certain change in latency"


def test_what_is_slower_in_turn_does_not_dominate_by_its_recorded_latency() -> None:
    slower = trial(2, 100, 9.9, 1.10, 0.02)  # recorded at another moment than the 10 ms
    crowd = study(slower)
    original = crowd.references["original"]
    compared = compare(crowd, slower, original)
    assert compared.verdicts == {"params": 1, "latency_ms": -1}
    assert not compared.dominates
    assert dominators(crowd, original) == ()


def test_what_is_slower_as_recorded_does_not_dominate_by_taking_turns() -> None:
    faster = trial(2, 100, 10.1, 0.90, 0.02)
    crowd = study(faster)
    compared = compare(crowd, faster, crowd.references["original"])
    assert compared.verdicts == {"params": 1, "latency_ms": 1}
    assert not compared.dominates


def test_one_worse_objective_prevents_domination() -> None:
    large = trial(2, 1100, 5.0, 0.5, 0.02)
    compared = compare(study(large), large, study(large).references["original"])
    assert compared.verdicts == {"params": -1, "latency_ms": 1}
    assert compared.better == 1
    assert not compared.dominates
    names = ("params", "latency_ms")
    assert not dominates({"params": 1, "latency_ms": 3}, {"params": 2, "latency_ms": 2}, names)
    assert not dominates({"params": 1, "latency_ms": 2}, {"params": 1, "latency_ms": 2}, names)
    assert dominates({"params": 1, "latency_ms": 1}, {"params": 1, "latency_ms": 2}, names)


def test_equal_values_are_equal_and_not_tied() -> None:
    same = trial(2, 1000, 5.0, 0.5, 0.02)
    compared = compare(study(same), same, study(same).references["original"])
    assert compared.verdicts["params"] == 0
    assert not compared.tied("params")
    assert change_of(OBJECTIVES[0], compared) == "as many parameters"
    assert compared.dominates


@pytest.mark.parametrize("disturbed", [(False, False), (True, False), (False, True)])
def test_a_disturbance_of_either_latency_is_one_of_the_comparison(
    disturbed: tuple[bool, bool],
) -> None:
    fast = with_findings(trial(2, 100, 2.0, 0.5, 0.02), contended=disturbed[0])
    original = with_findings(study().references["original"], contended=disturbed[1])
    assert compare(study(fast), fast, original).contended == any(disturbed)


def test_a_disturbed_latency_is_told_as_about() -> None:
    busy = with_findings(trial(2, 100, 2.0, 0.5, 0.02), contended=True)
    assert "about 2.0x lower latency" in study_headline(study(busy))


def test_the_headline_of_a_study_whose_limits_reject_everything() -> None:
    over = [replace(trial(n, 100, 3.0 + n, 0.5, 0.02), state="rejected") for n in (2, 3)]
    told = study_headline(study(*over, config={"limits": {"latency_ms": 0.1}}))
    assert told == (
        "2 candidates were rejected by the limit latency_ms <= 0.1; the smallest seen is 5.00 ms."
    )
