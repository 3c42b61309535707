"""Whether latencies in several set-ups order architectures alike, from records by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nas.objectives import select_objectives
from studies.record.latencies import agreements, kendall, latencies
from studies.record.records import StudyRecord, TrialRecord
from studies.report.figure_tables import points_table
from studies.report.latencies_figure import agreement_words, latency_panels, latency_table
from studies.report.words import report_words
from tests.fakes.records import study, trial, with_findings

NAMES = ("params", "latency_ms", "latency_ms:board")


def timed(number: int, here: float, board: float, reference: str | None = None) -> TrialRecord:
    one = trial(number, None, 100.0 + number, reference)
    values = {**one.objectives, "latency_ms": here, "latency_ms:board": board}
    intervals = {"latency_ms:board": (board - 0.5, board + 0.5)}
    return with_findings(one, objectives=values, intervals=intervals)


def of(*trials: TrialRecord, **config: Any) -> StudyRecord:
    setups = {"board": {"backend": "onnxruntime", "part": "decoder"}}
    return replace(
        study(*trials),
        objectives=select_objectives(NAMES),
        config={"setups": setups, "latency": {"backend": "openvino"}, **config},
        environment={"runtime": "onnxruntime 1.24, openvino 2026.1"},
    )


STUDY = of(
    timed(0, 10.0, 10.0, "original"),
    timed(1, 30.0, 40.0, "modified"),
    timed(2, 5.0, 12.0),  # faster than original here alone
    timed(3, 11.0, 8.0),  # on the board alone
    timed(4, 4.0, 4.0),
)


def test_pairs_of_orders_are_counted() -> None:
    (found,) = agreements(STUDY)
    assert (found.one.name, found.other.name) == ("latency_ms", "latency_ms:board")
    # Of ten pairs, the models 2 and 0, 2 and 3, and 3 and 0 are ordered differently.
    assert found.tau == pytest.approx((7 - 3) / 10)
    assert found.interval[0] < found.tau < found.interval[1]
    assert (found.models, found.reference) == (5, "original")
    assert (found.faster_in_one, found.faster_in_other) == (1, 1)
    words = agreement_words(found)
    assert words.startswith("Kendall's tau between latency and board latency is 0.40 (")
    assert words.endswith("original by latency alone: 1; by board latency alone: 1.")


def test_the_same_order_agrees_fully_and_the_opposite_one_not_at_all() -> None:
    values = np.random.default_rng(0).random(30)
    for factor, expected in ((2, 1.0), (-1, -1.0)):
        tau, interval = kendall(values.tolist(), (factor * values).tolist())
        assert (tau, *interval) == pytest.approx((expected,) * 3)
    tau, (low, high) = kendall(values.tolist(), np.random.default_rng(1).random(30).tolist())
    assert low < 0 < high
    assert low < tau < high


def test_a_recorded_latency_is_compared_too() -> None:
    recorded = replace(STUDY, objectives=select_objectives(["params", "latency_ms"]))
    assert [one.name for one in latencies(recorded)] == ["latency_ms", "latency_ms:board"]
    assert len(agreements(recorded)) == 1
    points = points_table(recorded)
    table = latency_table(recorded, points, latencies(recorded))  # type: ignore[arg-type]
    row = table.set_index("name").loc["#2"]
    assert (row["latency_ms"], row["latency_ms:board"], row["latency_ms:board_low"]) == (
        5,
        12,
        11.5,
    )
    assert np.isnan(row["latency_ms_low"])


def test_one_set_up_or_few_models_have_nothing_to_compare() -> None:
    alone = replace(STUDY, objectives=select_objectives(["params", "latency_ms"]), config={})
    assert agreements(alone) == []
    assert agreements(of(*STUDY.trials[:2])) == []
    assert latency_panels(alone, points_table(alone)) == []


def test_the_report_says_what_was_timed() -> None:
    words = report_words(STUDY)
    facts = dict(words["facts"])
    assert facts["Further set-ups"] == "board: onnxruntime 1.24, the decoder alone"
    assert facts["Latency"].startswith("openvino 2026.1")
    rewritten = of(*STUDY.trials, latency={"backend": "openvino_rewritten"})
    assert dict(report_words(rewritten)["facts"])["Latency"].startswith("openvino_rewritten 2026.1")
    explained = dict(words["front"]["heads"])
    assert explained["Latency (ms)"].startswith(
        "one full forward pass (encoder, sampling, decoder)"
    )
    assert "(openvino 2026.1)" in explained["Latency (ms)"]
    assert explained["board latency (ms)"].startswith("one pass (onnxruntime 1.24, the decoder")
