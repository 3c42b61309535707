"""Comparison of a trial with a reference model: paired latencies, ties, domination."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nas.findings import Findings
from nas.objectives import dominates, select_objectives
from search_spaces.references import MODIFIED, ORIGINAL
from studies.record.comparison import (
    Comparison,
    champion,
    compare,
    dominators,
    found,
    ranked,
)
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


def test_a_disturbed_latency_is_reported_as_about() -> None:
    busy = with_findings(trial(2, 100, 2.0, 0.5, 0.02), contended=True)
    assert "about 2.0x lower latency" in study_headline(study(busy))


def test_the_headline_of_a_study_whose_limits_reject_everything() -> None:
    over = [replace(trial(n, 100, 3.0 + n, 0.5, 0.02), state="rejected") for n in (2, 3)]
    told = study_headline(study(*over, config={"limits": {"latency_ms": 0.1}}))
    assert told == (
        "2 candidates were rejected by the limit latency_ms <= 0.1; the smallest seen is 5.00 ms."
    )


def with_latency_over(
    name: str, *bounds: float, ms: float = 5.0, params: float = 100
) -> TrialRecord:
    """A trial whose latency was measured in turn with one reference: (median, low, high)."""
    ends = ("", "_low", "_high")
    metrics = {f"latency_over_{name}{end}": value for end, value in zip(ends, bounds, strict=True)}
    return with_findings(trial(2, params, ms, 1.0, 0.0), metrics=metrics)


def against(name: str, one: TrialRecord) -> Comparison:
    return compare(study(one), one, study(one).references[name])


def test_equal_values_are_not_tied_for_want_of_certainty() -> None:
    compared = against("original", trial(2, 1000, 2.0, 0.5, 0.02))
    assert compared.verdicts == {"params": 0, "latency_ms": 1}
    assert not compared.tied("params")
    assert not compared.tied("latency_ms")
    assert compared.dominates


def test_what_is_better_by_its_value_but_slower_in_turn_does_not_dominate() -> None:
    compared = against("original", trial(2, 100, 5.0, 1.5, 0.02))
    assert compared.verdicts == {"params": 1, "latency_ms": -1}
    assert not compared.dominates


def test_what_is_faster_in_turn_but_worse_by_its_value_does_not_dominate() -> None:
    compared = against("original", trial(2, 100, 12.0, 0.5, 0.02))
    assert compared.verdicts == {"params": 1, "latency_ms": 1}
    assert not compared.dominates


def test_one_certain_gain_and_a_tie_dominate() -> None:
    assert against("original", trial(2, 100, 9.9, 0.99, 0.05)).dominates


def test_the_mean_factor_is_geometric_and_better_counts_certain_gains() -> None:
    compared = against("original", trial(2, 500, 2.0, 0.125, 0.001))
    assert compared.mean_factor == pytest.approx((2 * 8) ** 0.5)
    assert compared.better == 2
    assert against("original", trial(2, 2000, 2.0, 0.5, 0.02)).better == 1


@pytest.mark.parametrize(
    ("bounds", "factor", "verdict"),
    [
        ((0.5, 0.4, 0.8), 2.0, 1),
        ((1.25, 0.9, 1.6), 0.8, 0),
        ((0.8, 0.5, 1.1), 1.25, 0),
        ((1.25, 1.1, 1.6), 0.8, -1),
        ((1.25, 1.0, 1.6), 0.8, 0),  # an interval that ends at one includes it
        ((0.8, 0.5, 1.0), 1.25, 0),
    ],
)
@pytest.mark.parametrize("reference", ["original", "modified"])
def test_a_latency_measured_in_turn_with_the_reference_itself_decides(
    reference: str, bounds: tuple[float, float, float], factor: float, verdict: int
) -> None:
    compared = against(reference, with_latency_over(reference, *bounds))
    assert compared.factors["latency_ms"] == pytest.approx(factor)
    assert compared.verdicts["latency_ms"] == verdict


@pytest.mark.parametrize(
    ("ratio", "half", "factor", "verdict"),
    [
        (0.5, 0.02, 8.0, 1),
        (3.9, 0.1, 4 / 3.9, 0),  # both intervals reach 4.0
        (3.8, 0.05, 4 / 3.8, 1),
        (4.3, 0.1, 4 / 4.3, -1),
        (4.1, 0.1, 4 / 4.1, 0),
    ],
)
def test_ratios_to_original_are_divided_with_the_bounds_of_the_extremes(
    ratio: float, half: float, factor: float, verdict: int
) -> None:
    compared = against("modified", trial(2, 100, 2.0, ratio, half))
    assert compared.factors["latency_ms"] == pytest.approx(factor)
    assert compared.verdicts["latency_ms"] == verdict


@pytest.mark.parametrize("missing", ["", "_low", "_high"])
@pytest.mark.parametrize("of", ["trial", "reference"])
def test_recorded_latencies_are_divided_where_a_ratio_or_its_bound_is_missing(
    missing: str, of: str
) -> None:
    def without(one: TrialRecord) -> TrialRecord:
        gone = f"latency_over_original{missing}"
        return with_findings(one, metrics={k: v for k, v in one.metrics.items() if k != gone})

    fast = trial(2, 100, 20.0, 0.5, 0.02)
    modified = study(fast).references["modified"]
    pair = (without(fast), modified) if of == "trial" else (fast, without(modified))
    compared = compare(study(fast), *pair)
    assert compared.factors["latency_ms"] == pytest.approx(40 / 20)
    assert compared.verdicts["latency_ms"] == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ((800, 990), None, 1),
        ((800, 1000), None, 0),
        ((1000, 1200), None, 0),
        ((1010, 1200), None, -1),
        (None, (910, 1200), 1),
        (None, (800, 1200), 0),
        (None, (800, 890), -1),
        ((800, 950), (960, 1200), 1),
        ((800, 970), (960, 1200), 0),
        ((980, 1100), (800, 970), -1),
    ],
)
def test_values_whose_intervals_meet_are_tied(
    ours: tuple[float, float] | None, theirs: tuple[float, float] | None, verdict: int
) -> None:
    one = trial(2, 900, 2.0, 0.5, 0.02)
    other = study(one).references["original"]
    one = with_findings(one, intervals={"params": ours} if ours else {})
    other = with_findings(other, intervals={"params": theirs} if theirs else {})
    compared = compare(study(one), one, other)
    assert compared.verdicts["params"] == verdict
    assert compared.factors["params"] == pytest.approx(1000 / 900)


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True), (False, False)])
def test_a_disturbance_of_either_latency_counts_where_latency_is_compared(
    ours: bool, theirs: bool
) -> None:
    one = with_findings(trial(2, 100, 2.0, 0.5, 0.02), contended=ours)
    record = study(one)
    original = with_findings(record.references["original"], contended=theirs)
    assert compare(record, one, original).contended is (ours or theirs)
    counted = replace(record, objectives=OBJECTIVES[:1])
    assert compare(counted, one, original).contended is False


def test_dominators_are_found_trials_that_certainly_dominate() -> None:
    certain = trial(2, 100, 2.0, 0.5, 0.02)
    slower_in_turn = trial(3, 100, 2.0, 1.5, 0.02)
    larger = trial(4, 2000, 2.0, 0.5, 0.02)
    record = study(certain, slower_in_turn, larger, replace(certain, number=5, state="failed"))
    assert [t.number for t in found(record)] == [2, 3, 4]
    assert [t.number for t in dominators(record, record.references["original"])] == [2]


def test_the_champion_dominates_or_else_is_better_in_most_and_by_most() -> None:
    dominating = trial(2, 999, 9.0, 0.9, 0.01)
    smaller, much_smaller = trial(3, 100, 20.0, 2.0, 0.02), trial(4, 10, 20.0, 2.0, 0.02)
    worse = trial(5, 2000, 20.0, 2.0, 0.02)
    record = study(smaller, worse, dominating, much_smaller)
    original = record.references["original"]
    order = [t.number for t in ranked(record, found(record), original)]
    assert order == [2, 4, 3, 5]
    assert champion(record, original) == dominating
    assert champion(study(worse, smaller), original) == smaller
    assert champion(study(), original) is None
