"""Early stopping in a study: what is stopped, how it is recorded, what is resumed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import ValidationError

from nas.search.early_stopping import EarlyStopping
from search_spaces.architecture import Architecture
from studies.record.records import StudyRecord
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.crew import TurnTaking
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import EPOCHS, Learner
from tests.fakes.runs import stopping_config


def run(root: Path, learner: Learner, workers: int = 1, **changes: Any) -> StudyRecord:
    wanted = stopping_config(**changes)
    store, space = StudyStore(root / wanted.name), wanted.load_space()
    with store.writing():
        store.create(wanted, space, ENVIRONMENT)
        crew = Alone(learner) if workers == 1 else TurnTaking(workers, learner)
        return Runner(wanted, space, store, crew).run()


@pytest.mark.parametrize("workers", [1, 4])
def test_what_cannot_matter_is_stopped_and_never_enters_the_front(
    tmp_path: Path, workers: int
) -> None:
    epochs: dict[str, int] = {}
    record = run(tmp_path, Learner(epochs), workers)
    states = Counter(trial.state for trial in record.trials)
    assert states["stopped"] >= 4
    assert states["complete"] >= 4
    assert states.total() == 22
    assert len(record.references) == 2  # they are never stopped
    stopped = [trial for trial in record.trials if trial.state == "stopped"]
    assert all(epochs[trial.digest] in (1, 3) for trial in stopped)
    assert all("stopped after epoch" in (trial.reason or "") for trial in stopped)
    assert not {trial.digest for trial in stopped} & {trial.digest for trial in record.front}
    assert all(epochs[trial.digest] == EPOCHS for trial in record.complete)


def test_optuna_gets_them_as_pruned_without_values(tmp_path: Path) -> None:
    record = run(tmp_path, Learner({}))
    study = StudyStore.open(tmp_path, "s").study
    for trial, frozen in zip(record.trials, study.trials, strict=True):
        pruned = frozen.state == optuna.trial.TrialState.PRUNED
        assert pruned == (trial.state == "stopped")
        assert (frozen.values is None) == pruned
    assert StudyStore.open(tmp_path, "s").record().trials == record.trials


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyRecord:
    return run(tmp_path_factory.mktemp("whole"), Learner({}))


@pytest.mark.parametrize("interrupt_at", [5, 25, 40, 60])
def test_an_interruption_changes_nothing_and_measures_nothing_twice(
    tmp_path: Path, whole: StudyRecord, interrupt_at: int
) -> None:
    epochs: dict[str, int] = {}
    first = Learner(epochs, interrupt_at)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", first)
    second = Learner(epochs)
    resumed = run(tmp_path / "cut", second)
    assert [(t.digest, t.state) for t in resumed.trials] == [
        (t.digest, t.state) for t in whole.trials
    ]
    assert max(Counter([*first.measured, *second.measured]).values()) == 1


def test_a_stopped_training_goes_on_where_it_stopped_when_the_rule_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back: list[str] = []

    def resumable(rule: EarlyStopping) -> list[str]:
        stopped = [d for d, curve in rule._curves.items() if curve.stopped_at and d not in back]
        return stopped[:1] if not back else []

    def report(rule: EarlyStopping, digest: str, *arguments: Any) -> bool:
        goes_on = really(rule, digest, *arguments)
        return goes_on or digest in back

    really = EarlyStopping.report
    monkeypatch.setattr(EarlyStopping, "report", report)
    monkeypatch.setattr(EarlyStopping, "resumable", resumable)
    epochs: dict[str, int] = {}
    learner = Learner(epochs)
    start = Alone.start

    def noted(crew: Alone, number: int, architecture: Architecture, known: Any = None) -> None:
        if known is not None:
            back.append(architecture.digest)
        start(crew, number, architecture, known)

    monkeypatch.setattr(Alone, "start", noted)
    record = run(tmp_path, learner)
    assert len(back) == 1
    (returned,) = [trial for trial in record.trials if trial.digest == back[0]]
    assert returned.state == "complete"
    assert epochs[returned.digest] == EPOCHS
    assert len(returned.history) == EPOCHS
    assert learner.measured.count(returned.digest) == 1
    assert len(record.trials) == 22


def test_rungs_outside_the_training_are_refused() -> None:
    with pytest.raises(ValidationError, match="must lie between 1 and 8"):
        stopping_config(search={"early_stopping": {"rungs": [1, 9]}})
    with pytest.raises(ValidationError, match="eta"):
        stopping_config(search={"early_stopping": {"eta": 1}})
