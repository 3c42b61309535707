"""A study that learns from an earlier one, and when it may."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nas.search import Proposer
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.record.records import StudyRecord, TrialRecord
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config


def run(root: Path, earlier: tuple[TrialRecord, ...] = (), **changes: Any) -> StudyRecord:
    asked, store = config(**changes), StudyStore(root / changes["name"])
    space = asked.load_space()
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        return Runner(asked, space, store, Alone(FakeEvaluator()), earlier=earlier).run()


@pytest.mark.slow
def test_the_sampler_learns_from_the_earlier_study_and_tries_its_architectures_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path, name="first")
    learnt: list[list[float]] = []

    def warm(proposer: Proposer, *columns: Any) -> None:
        learnt.extend(values for _, _, values in zip(*columns, strict=True))
        really(proposer, *columns)

    really = Proposer.warm
    monkeypatch.setattr(Proposer, "warm", warm)
    search = {"sampler": "pareto", "trials": 3, "warm_start": "first"}
    second = run(tmp_path, first.complete, name="second", search=search)
    assert len(second.complete) == 5
    names = first.objective_names
    members = [t for t in first.complete if t.assignment]
    assert learnt == [[trial.objectives[name] for name in names] for trial in members]


def test_only_our_sampler_learns_from_another_study() -> None:
    with pytest.raises(ValidationError, match="choose sampler pareto"):
        config(search={"sampler": "tpe", "warm_start": "first"})


def test_a_study_of_another_kind_teaches_nothing(tmp_path: Path) -> None:
    run(tmp_path, name="first")
    store, asked = StudyStore.open(tmp_path, "first"), config()
    store.require_comparable(asked, SearchSpace.load("quickstart"), ENVIRONMENT["data_fingerprint"])
    with pytest.raises(UserError, match="has other space and other data; name one"):
        store.require_comparable(asked, SearchSpace.load("tiny"), "1" * 12)
    space, data = SearchSpace.load("quickstart"), ENVIRONMENT["data_fingerprint"]
    other = config(objectives=[asked.objectives[0], "peak_memory_bytes"])
    with pytest.raises(UserError, match="has no peak_memory_bytes; name one"):
        store.require_comparable(other, space, data)
    store.require_comparable(config(objectives=list(asked.objectives[:2])), space, data)
