"""The study loop, with an evaluator that needs no time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.search import SAMPLERS
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies import runner
from studies.config import StudyConfig
from studies.records import StudyRecord
from studies.runner import Runner
from studies.store import StudyStore, list_studies
from tests.fake_evaluator import FakeEvaluator

ENVIRONMENT = {"data_fingerprint": "0" * 12}


def config(**changes: Any) -> StudyConfig:
    base: dict[str, Any] = {
        "name": "s",
        "space": "quickstart",
        "objectives": ["reconstruction_loss", "params"],
        "search": {"sampler": "random", "trials": 6},
    }
    return StudyConfig.model_validate({**base, **changes})


def run(
    root: Path,
    asked: StudyConfig,
    evaluator: FakeEvaluator | None = None,
    storage: str | None = None,
) -> StudyRecord:
    space = SearchSpace.load(asked.space)
    store = StudyStore(root / asked.name, storage)
    with store.writing():
        store.create(asked, space, ENVIRONMENT)
        return Runner(asked, space, store, evaluator or FakeEvaluator()).run()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_references_come_first_whatever_the_sampler(tmp_path: Path, sampler: str) -> None:
    record = run(tmp_path, config(search={"sampler": sampler, "trials": 3}))
    assert [trial.reference for trial in record.trials] == [
        "original",
        "modified",
        None,
        None,
        None,
    ]
    assert {trial.state for trial in record.trials} == {"complete"}


def test_no_architecture_is_trained_twice(tmp_path: Path) -> None:
    evaluator = FakeEvaluator()
    asked = config(space="tiny", search={"sampler": "random", "trials": 1000})
    record = run(tmp_path, asked, evaluator)
    distinct = SearchSpace.load("tiny").distinct()
    assert distinct is not None
    assert len(record.trials) == distinct + 2  # the references are no members: both run beside it
    assert max(Counter(evaluator.trained).values()) == 1


def test_running_again_resumes_and_asks_for_nothing_new(tmp_path: Path) -> None:
    first = run(tmp_path, config())
    again = FakeEvaluator()
    assert run(tmp_path, config(), again) == first
    assert again.calls == 0
    more = run(tmp_path, config(search={"sampler": "random", "trials": 9}), again)
    assert again.calls == 3
    assert len({trial.digest for trial in more.trials}) == 11


@pytest.mark.parametrize("interrupt_on", [1, 2, 4])
def test_an_interrupted_trial_is_finished_first_under_its_number(
    tmp_path: Path, interrupt_on: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(), FakeEvaluator(interrupt_on=interrupt_on))
    left = StudyStore.open(tmp_path, "s").record().trials[-1]
    assert left.state == "running"
    record = run(tmp_path, config())
    assert record.trial(left.number).digest == left.digest
    assert [trial.state for trial in record.trials] == ["complete"] * 8
    assert [trial.number for trial in record.trials] == list(range(8))


def test_a_failed_candidate_is_recorded_with_its_reason_and_the_study_goes_on(
    tmp_path: Path,
) -> None:
    record = run(tmp_path, config(), FakeEvaluator(fail_on=4))
    failed = [trial for trial in record.trials if trial.state == "failed"]
    assert [trial.reason for trial in failed] == ["training diverged at epoch 1"]
    assert failed[0].objectives["params"] > 0
    assert len(record.complete) == 7


def test_limits_reject_before_training_but_never_a_reference(tmp_path: Path) -> None:
    evaluator = FakeEvaluator()
    record = run(tmp_path, config(limits={"params": 6000}), evaluator)
    rejected = [trial for trial in record.trials if trial.state == "rejected"]
    assert rejected
    assert all("over the limit 6000" in (trial.reason or "") for trial in rejected)
    assert not {trial.digest for trial in rejected} & set(evaluator.trained)
    assert len(record.references) == 2
    searched = [trial for trial in record.complete if not trial.reference]
    assert len(searched) == 6
    assert all(trial.objectives["params"] <= 6000 for trial in searched)


def test_limits_nothing_meets_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MAX_REJECTIONS", 30)
    record = run(tmp_path, config(limits={"params": 1}))
    assert sum(trial.state == "rejected" for trial in record.trials) == 30
    assert len(record.complete) == 2


def test_values_that_are_no_numbers_fail_the_trial(tmp_path: Path) -> None:
    class Endless(FakeEvaluator):
        def __call__(self, architecture: Any) -> Any:
            for findings in super().__call__(architecture):
                broken = {**findings.objectives, "reconstruction_loss": float("inf")}
                yield type(findings)(findings.step, broken)

    record = run(tmp_path, config(), Endless())
    assert {trial.state for trial in record.trials} == {"failed"}
    assert record.trials[0].reason == "reconstruction_loss is inf"


@pytest.mark.parametrize("changed", ["space", "objectives", "data", "training"])
def test_another_question_under_the_same_name_is_refused(tmp_path: Path, changed: str) -> None:
    run(tmp_path, config())
    other = {
        "space": "tiny",
        "objectives": ["params", "macs"],
        "data": {"count": 77},
        "training": {"epochs": 3},
    }
    with pytest.raises(UserError, match=rf"(?s)exists with other settings \({changed}.*--name"):
        run(tmp_path, config(**{changed: other[changed]}))


def test_images_that_changed_are_refused(tmp_path: Path) -> None:
    run(tmp_path, config())
    store = StudyStore(tmp_path / "s")
    with pytest.raises(UserError, match="content changed"):
        store.create(config(), SearchSpace.load("quickstart"), {"data_fingerprint": "1" * 12})


def test_a_study_has_one_writer(tmp_path: Path) -> None:
    with (
        StudyStore(tmp_path / "s").writing(),
        pytest.raises(UserError, match="being run by process"),
        StudyStore(tmp_path / "s").writing(),
    ):
        pass


def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot be written"), StudyStore(blocked / "s").writing():
        pass


def test_the_record_is_the_same_from_sqlite_and_the_journal(tmp_path: Path) -> None:
    journal = run(tmp_path / "a", config())
    sqlite = run(tmp_path / "b", config(), storage=f"sqlite:///{tmp_path / 'x.db'}")
    assert journal.trials == sqlite.trials
    assert StudyStore.open(tmp_path / "b", "s").record().trials == sqlite.trials


def test_a_foreign_study_in_the_storage_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    study = optuna.create_study(study_name="s", storage=url, directions=["minimize"] * 2)
    study.add_trial(optuna.create_trial(values=[1.0, 2.0]))
    with pytest.raises(UserError, match="nas did not make"):
        run(tmp_path, config(), storage=url)


def test_an_unusable_storage_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--storage"):
        run(tmp_path, config(), storage="nonsense://x")


def test_opening_an_unknown_study_offers_the_nearest(tmp_path: Path) -> None:
    run(tmp_path, config(name="faces64"))
    assert list_studies(tmp_path) == ["faces64"]
    with pytest.raises(UserError, match="did you mean 'faces64'"):
        StudyStore.open(tmp_path, "faces46")


def test_optuna_sees_the_parameters_and_values_of_every_trial(tmp_path: Path) -> None:
    record = run(tmp_path, config())
    study = StudyStore.open(tmp_path, "s").study
    space = SearchSpace.load("quickstart")
    for trial, frozen in zip(record.trials, study.trials, strict=True):
        assert frozen.values == [trial.objectives[n] for n in record.objective_names]
        assert space.architecture(space.from_optuna(frozen.params)) == trial.architecture
