"""The verdict of limits on recorded trials: derived again whenever the limits change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from optuna.trial import TrialState

from nas.findings import Findings
from nas.search import SAMPLERS
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from studies import launch
from studies.record.records import FinalLatency, State, StudyRecord, TrialRecord
from studies.record.tables import study_headline, study_notes, trials_table
from studies.record.verdict import judged, missed, violations
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.run.site import LocalSite
from studies.store.frozen import last_of_each
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator, Learner
from tests.fakes.runs import config, run, stopping_config


def test_a_limit_is_missed_by_its_share() -> None:
    known = Findings("static", {"params": 300, "macs": 900, "latency_ms": 5})
    excess = violations({"params": 200, "macs": 1000}, known)
    assert excess == pytest.approx({"params": 0.5, "macs": -0.1})


def test_what_is_not_known_yet_misses_nothing() -> None:
    limits = {"params": 200, "latency_ms": 4}
    for metrics in ({}, {"latency_ms_at_least": 0.0}, {"latency_ms_at_least": 3.9}):
        known = Findings("static", {"params": 100}, metrics)
        assert violations(limits, known) == {"params": -0.5}
        assert missed(limits, known) is None


def test_a_latency_counts_as_predicted_until_it_is_measured() -> None:
    limits, metrics = {"latency_ms": 4}, {"latency_ms_at_least": 6.0}
    assert violations(limits, Findings("static", {}, metrics)) == {"latency_ms": 0.5}
    measured = Findings("device", {"latency_ms": 3.0}, metrics)
    assert violations(limits, measured) == {"latency_ms": -0.25}


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
            "latency_ms is predicted to be at least 6.5, over the limit 4",
        ),
        ({"params": 100, "latency_ms": 3.0}, {"latency_ms_at_least": 6.5}, None),
    ],
)
def test_the_limit_that_is_missed_is_reported(
    objectives: dict[str, float], metrics: dict[str, float], told: str | None
) -> None:
    limits = {"params": 200, "latency_ms": 4}
    assert missed(limits, Findings("device", objectives, metrics)) == told


def test_without_limits_nothing_is_missed() -> None:
    assert missed({}, Findings("static", {"params": 1e9}, {})) is None


def trial(state: State, params: float, reference: str | None = None) -> TrialRecord:
    findings = Findings(objectives={"params": params})
    reason = "params 300 is over the limit 200" if state == "rejected" else None
    return TrialRecord(
        2, state, "0" * 12, ORIGINAL, reference=reference, reason=reason, findings=findings
    )


@pytest.mark.parametrize("state", ["complete", "stopped", "failed", "rejected"])
def test_what_is_over_a_limit_of_now_is_rejected_by_it(state: State) -> None:
    found = judged(trial(state, 300.0), {"params": 250})
    assert (found.state, found.ended) == ("rejected", state)
    assert found.reason == "params 300 is over the limit 250"
    assert found.trained == (state == "complete")
    assert found.searched == (state != "rejected")
    assert judged(found, {"params": 250}) == found


@pytest.mark.parametrize("state", ["complete", "stopped", "failed", "running"])
def test_what_is_within_the_limits_stays_as_it_ended(state: State) -> None:
    assert judged(trial(state, 300.0), {"params": 300}) == trial(state, 300.0)


def test_what_an_earlier_limit_rejected_is_open() -> None:
    found = judged(trial("rejected", 300.0), {"params": 300})
    assert (found.state, found.ended, found.searched) == ("open", "rejected", False)
    assert found.reason == "rejected by an earlier limit (params 300 is over the limit 200)"


def test_references_and_running_trials_are_not_judged() -> None:
    assert judged(trial("running", 300.0), {"params": 1}) == trial("running", 300.0)
    original = trial("complete", 300.0, "original")
    assert judged(original, {"params": 1}) == original


def limited(root: Path, largest: float | None, trials: int = 6, **changes: Any) -> StudyRecord:
    """Run or resume a study in a space of few architectures with a limit on their parameters."""
    limits = {} if largest is None else {"params": largest}
    search = {"sampler": changes.pop("sampler", "random"), "trials": trials}
    asked = config(space="tiny", limits=limits, search=search)
    record = run(root, asked, **changes)
    assert record == StudyStore.open(root, "s").record()  # as it is read is as it was kept
    return record


def candidates(record: StudyRecord, *states: State) -> list[TrialRecord]:
    return [t for t in record.trials if not t.reference and t.state in states]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.slow
def test_with_a_looser_limit_what_was_rejected_is_searched_again(
    tmp_path: Path, sampler: str
) -> None:
    distinct = SearchSpace.load("tiny").distinct()
    assert distinct is not None
    first = limited(tmp_path, 3000.0, distinct, sampler=sampler)
    rejected, fit = candidates(first, "rejected"), candidates(first, "complete")
    assert first.exhausted
    assert len(rejected) + len(fit) == distinct
    assert min(len(rejected), len(fit)) >= 5
    evaluator = FakeEvaluator()
    looser = limited(tmp_path, 7000.0, distinct, sampler=sampler, evaluator=evaluator)
    over = {t.digest for t in rejected if t.objectives["params"] > 7000}
    assert over
    assert len(over) < len(rejected)
    assert set(evaluator.trained) == {t.digest for t in rejected} - over
    assert {t.digest for t in candidates(looser, "complete")} == {
        t.digest for t in first.trials if not t.reference and t.digest not in over
    }
    assert all(t.objectives["params"] <= 7000 for t in looser.front if not t.reference)
    assert {t.digest for t in candidates(looser, "rejected")} == over
    assert all("over the limit 7000" in str(t.reason) for t in candidates(looser, "rejected"))
    assert len(looser.trials) == distinct + 2  # each architecture is listed once
    assert not candidates(looser, "open")
    again = FakeEvaluator()
    assert limited(tmp_path, 7000.0, distinct, sampler=sampler, evaluator=again) == looser
    assert again.calls == 0


def test_what_is_open_is_reported_until_it_is_evaluated(tmp_path: Path) -> None:
    first = limited(tmp_path, 3000.0, 3)
    rejected = candidates(first, "rejected")
    assert len(rejected) >= 2
    evaluator = FakeEvaluator()
    looser = limited(tmp_path, None, 3, evaluator=evaluator)  # three have been trained already
    assert evaluator.calls == 0
    assert candidates(looser, "open") == [
        replace(
            t, state="open", ended="rejected", reason=f"rejected by an earlier limit ({t.reason})"
        )
        for t in rejected
    ]
    assert study_notes(looser) == [
        f"{len(rejected)} candidates that earlier limits rejected are within those of now (none): "
        "the search may evaluate them again."
    ]
    assert list(trials_table(looser)["state"]).count("open") == len(rejected)
    assert limited(tmp_path, 3000.0, 3) == first


def test_with_a_tighter_limit_members_over_it_leave_the_front_with_a_note(tmp_path: Path) -> None:
    first = limited(tmp_path, None, 12)
    assert not candidates(first, "rejected")
    bound = sorted(t.objectives["params"] for t in candidates(first, "complete"))[5]
    evaluator = FakeEvaluator()
    tighter = limited(tmp_path, bound, 12, evaluator=evaluator)
    assert evaluator.calls == 0  # the budget of 12 trainings is spent
    assert tighter.searched == 12
    over = candidates(tighter, "rejected")
    assert len(over) == 6
    assert {t.objectives["params"] > bound for t in over} == {True}
    assert not {t.number for t in over} & {t.number for t in (*tighter.front, *tighter.complete)}
    assert study_notes(tighter) == [
        f"6 trained architectures are over the limits (params <= {bound:g}) and left out: "
        f"{', '.join(t.name for t in over)}."
    ]
    assert "of 6 architectures found" in study_headline(tighter)
    stored = StudyStore.open(tmp_path, "s").study.trials
    assert {t.state for t in stored} == {TrialState.COMPLETE}  # no verdict is stored
    more = limited(tmp_path, bound, 14)
    assert [t.objectives["params"] <= bound for t in candidates(more, "complete")] == [True] * 8
    looser = limited(tmp_path, None, 14)
    assert len(candidates(looser, "complete")) == 14  # those left out are back, with their losses
    assert [t for t in candidates(looser, "complete") if t.number < 14] == candidates(
        first, "complete"
    )


@pytest.mark.slow
def test_what_was_stopped_early_is_judged_too(tmp_path: Path) -> None:
    checkpoints: dict[str, int] = {}
    first = run(tmp_path, stopping_config(), Learner(checkpoints))
    stopped = candidates(first, "stopped")
    assert len(stopped) >= 5
    bound = sorted(t.objectives["params"] for t in stopped)[2]
    tighter = run(tmp_path, stopping_config(limits={"params": bound}), Learner(checkpoints))
    assert len(candidates(tighter, "stopped")) == 3
    assert tighter.searched == first.searched
    assert tighter == StudyStore.open(tmp_path, "s").record()
    more = stopping_config(
        limits={"params": bound}, search={"sampler": "random", "trials": 24, "early_stopping": {}}
    )
    assert run(tmp_path, more, Learner(checkpoints)).searched == 24


def test_a_limit_on_what_was_not_recorded_is_reported(tmp_path: Path) -> None:
    limited(tmp_path, None, 3)
    asked = config(
        space="tiny", limits={"latency_ms": 5.0}, search={"sampler": "random", "trials": 3}
    )
    assert study_notes(run(tmp_path, asked)) == [
        "The limit latency_ms does not apply to 3 architectures whose latency_ms was not recorded: "
        "#2, #3, #4."
    ]


class Timed(FakeEvaluator):
    """Every latency is 4 ms."""

    def __call__(self, architecture: Architecture, known: Any = None) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            yield replace(findings, objectives={**findings.objectives, "latency_ms": 4.0})


def test_a_final_latency_over_the_limit_takes_a_member_off_the_front(tmp_path: Path) -> None:
    asked = config(
        space="tiny", limits={"latency_ms": 5.0}, search={"sampler": "random", "trials": 3}
    )
    store, space = StudyStore(tmp_path / "s"), SearchSpace.load("tiny")
    with store.writing():
        store.create(asked, space, {**ENVIRONMENT, "original_latency_ms": 10.0})
        record = Runner(asked, space, store, Alone(Timed())).run()
        first, second, *_ = candidates(record, "complete")
        ratios = {first.digest: 0.51, second.digest: 0.49}
        store.set_final_latency(
            {d: FinalLatency({"original": (r, r, r)}, False) for d, r in ratios.items()}
        )
        [over] = candidates(store.record(), "rejected")
        assert (over.number, over.reason) == (first.number, "latency_ms 5.1 is over the limit 5")
        assert over.searched
        again = Timed()
        assert Runner(asked, space, store, Alone(again)).run().searched == 3
        assert again.calls == 0  # a resumed study does not search for another


@pytest.mark.slow
def test_what_was_evaluated_again_is_no_news_for_other_drivers(tmp_path: Path) -> None:
    distinct = SearchSpace.load("tiny").distinct()
    assert distinct is not None
    limited(tmp_path, 3000.0, distinct)
    looser = limited(tmp_path, 7000.0, distinct)
    stored = StudyStore.open(tmp_path, "s").study.trials
    assert len(stored) > len(looser.trials)
    assert [t.number for t in last_of_each(stored)] == [t.number for t in looser.trials]


def test_a_tight_limit_that_a_trial_meets_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = limited(tmp_path, None, 3)
    smallest = min(t.objectives["params"] for t in candidates(first, "complete"))

    def unmet(*_: object) -> None:
        raise UserError("limits: none of 30 random candidates")

    monkeypatch.setattr(launch, "check_limits", unmet)
    for root, limit, refused in (
        (tmp_path, smallest, False),
        (tmp_path, smallest - 1, True),
        (tmp_path / "new", smallest, True),
    ):
        asked = config(space="tiny", limits={"params": limit}, device="cpu")
        request = SimpleNamespace(
            config=asked,
            space=SearchSpace.load("tiny"),
            store=StudyStore(root / "s"),
            progress_bar=lambda _: nullcontext(lambda *_: None),
        )
        with pytest.raises(UserError) if refused else nullcontext():
            launch._checked_device(cast(Any, request), LocalSite())
