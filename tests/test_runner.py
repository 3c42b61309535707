"""The study loop, with an evaluator that needs no time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.artefacts import CHECKPOINT
from nas.search import SAMPLERS
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.cli.options import find_architecture
from studies.run import deaths, limits
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.store.store import StudyStore, list_studies
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.records import trial as made_up
from tests.fakes.runs import config, run


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


@pytest.mark.slow
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


def test_what_is_predicted_to_be_too_slow_is_not_measured(tmp_path: Path) -> None:
    measured: list[str] = []

    class Predicted(FakeEvaluator):
        def __call__(self, architecture: Any, known: Any = None) -> Any:
            at_least = 1.0 + int(architecture.digest, 16) % 20
            for findings in super().__call__(architecture, known):
                values = dict(findings.objectives)
                if findings.step != "static":
                    measured.append(architecture.digest)
                    values["latency_ms"] = 3 * at_least
                yield type(findings)(findings.step, values, {"latency_ms_at_least": at_least})

    record = run(tmp_path, config(limits={"latency_ms": 11}), Predicted())
    rejected = [trial for trial in record.trials if trial.state == "rejected"]
    unmeasured = [trial for trial in rejected if "latency_ms" not in trial.objectives]
    assert unmeasured
    assert all("predicted to be" in (trial.reason or "") for trial in unmeasured)
    assert not {trial.digest for trial in unmeasured} & set(measured)
    # A prediction below the limit proves nothing: what was measured to be over it is rejected.
    assert any("is over the limit 11" in (trial.reason or "") for trial in rejected)


def test_limits_nothing_meets_end_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_REJECTIONS", 30)
    record = run(tmp_path, config(limits={"params": 1}))
    assert sum(trial.state == "rejected" for trial in record.trials) == 30
    assert len(record.complete) == 2


def test_rejections_end_the_study_only_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_REJECTIONS", 3)
    counted = limits.Rejections({"params": 1.0})
    rejected = made_up(2, None, 5.0, state="rejected")
    for one in (rejected, rejected, made_up(3, 0.5, 0.5), rejected, rejected):
        counted.count(one)
    assert counted.hopeless() is None
    counted.count(made_up(0, 0.4, 1000, "original"))  # a reference is no candidate
    counted.count(rejected)
    assert "the last 3 candidates were all over params 1" in (counted.hopeless() or "")


def test_values_that_are_no_numbers_fail_the_trial(tmp_path: Path) -> None:
    class Endless(FakeEvaluator):
        def __call__(self, architecture: Any, known: Any = None) -> Any:
            for findings in super().__call__(architecture, known):
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
        store.create(
            config(), SearchSpace.load("quickstart"), {**ENVIRONMENT, "data_fingerprint": "1" * 12}
        )


@pytest.mark.parametrize("written", range(8))
def test_a_study_killed_while_it_was_created_is_created_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write, left = optuna.Study.set_user_attr, iter(range(written))

    def killed(study: optuna.Study, key: str, value: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(study, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "set_user_attr", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, config(), FakeEvaluator(interrupt_on=1))
    assert len(run(tmp_path, config()).complete) == 8


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


@pytest.mark.slow
def test_the_record_is_the_same_from_sqlite_and_the_journal(tmp_path: Path) -> None:
    journal = run(tmp_path / "a", config())
    sqlite = run(tmp_path / "b", config(), storage=f"sqlite:///{tmp_path / 'x.db'}")
    assert journal.trials == sqlite.trials
    assert StudyStore.open(tmp_path / "b", "s").record().trials == sqlite.trials


def test_a_foreign_study_in_the_storage_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    study = optuna.create_study(study_name="s", storage=url, directions=["minimize"] * 2)
    study.add_trial(optuna.create_trial(values=[1.0, 2.0]))
    with pytest.raises(
        UserError, match="that nas did not create; choose another --name or --storage"
    ):
        run(tmp_path, config(), storage=url)


def test_an_unusable_storage_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--storage"):
        run(tmp_path, config(), storage="nonsense://x")


def test_opening_an_unknown_study_offers_the_nearest(tmp_path: Path) -> None:
    run(tmp_path, config(name="faces64"))
    assert list_studies(tmp_path) == ["faces64"]
    with pytest.raises(UserError, match="did you mean 'faces64'"):
        StudyStore.open(tmp_path, "faces46")


def test_a_trial_of_a_study_without_trials_is_refused(tmp_path: Path) -> None:
    asked = config()
    StudyStore(tmp_path / "s").create(asked, asked.load_space(), ENVIRONMENT)
    with pytest.raises(UserError, match=r"^s#5: study 's' has no trials yet$"):
        find_architecture("s#5", tmp_path)


def test_optuna_sees_the_parameters_and_values_of_every_trial(tmp_path: Path) -> None:
    record = run(tmp_path, config())
    journal = JournalStorage(JournalFileBackend(str(tmp_path / "s" / "journal.log")))
    study = optuna.load_study(study_name="s", storage=journal)  # as any user of Optuna would
    space = SearchSpace.load("quickstart")
    for trial, frozen in zip(record.trials, study.trials, strict=True):
        assert frozen.values == [trial.objectives[n] for n in record.objective_names]
        found = space.suggest(optuna.trial.FixedTrial(frozen.params))
        assert space.architecture(found) == trial.architecture


@pytest.mark.slow
def test_an_interruption_does_not_change_the_search(tmp_path: Path) -> None:
    for sampler in SAMPLERS:
        trials = 9 if sampler == "pareto" else 14  # a second each, once it screens
        asked = config(name=sampler, search={"sampler": sampler, "trials": trials})
        whole = run(tmp_path / "whole", asked)
        for interrupt_on in (1, 3, 9):
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / f"{interrupt_on}", asked, FakeEvaluator(interrupt_on=interrupt_on))
            resumed = run(tmp_path / f"{interrupt_on}", asked)
            assert [t.digest for t in resumed.trials] == [t.digest for t in whole.trials], sampler


def test_a_trial_that_kills_its_process_again_and_again_fails(tmp_path: Path) -> None:
    for _ in range(deaths.MAX_STARTS):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, config(), FakeEvaluator(interrupt_on=1))
    record = run(tmp_path, config())
    assert record.trials[0].state == "failed"
    assert "the process ended 3 times" in (record.trials[0].reason or "")
    assert [trial.state for trial in record.trials[1:]] == ["complete"] * 7


def test_a_line_that_was_not_written_to_its_end_is_cut(tmp_path: Path) -> None:
    first = run(tmp_path, config())
    journal = tmp_path / "s" / "journal.log"
    content = journal.read_bytes()
    journal.write_bytes(content + content.splitlines()[-1][:-20])
    (tmp_path / "s" / "journal.log.lock").write_text("")
    more = run(tmp_path, config(search={"sampler": "random", "trials": 8}))
    assert more.trials[:8] == first.trials
    assert len(more.trials) == 10
    assert journal.read_bytes().endswith(b"\n")


def test_checkpoints_are_removed_even_if_the_driver_died_before(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(), FakeEvaluator(interrupt_on=3))
    trials = StudyStore.open(tmp_path, "s").record().trials
    assert [trial.state for trial in trials] == ["complete", "complete", "running"]
    left = [tmp_path / "s" / "artefacts" / trial.digest / CHECKPOINT for trial in trials]
    for path in left:
        path.parent.mkdir()
        path.touch()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config(), FakeEvaluator(interrupt_on=1))
    assert [path.exists() for path in left] == [False, False, True]
    run(tmp_path, config())
    assert not any(path.exists() for path in left)


def test_a_damaged_journal_is_reported_by_its_line(tmp_path: Path) -> None:
    run(tmp_path, config())
    journal = tmp_path / "s" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:5], b"{broken\n", *lines[5:]]))
    with pytest.raises(UserError, match=r"journal\.log: damaged in line 6"):
        StudyStore.open(tmp_path, "s").record()


@pytest.mark.slow
def test_a_study_can_be_moved_and_read_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = run(Path("here"), config())
    sqlite = run(Path("here"), config(name="q"), storage="sqlite:///x.db")
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert StudyStore.open(Path("../there"), "s").record().trials == first.trials
    assert StudyStore.open(Path("../there"), "q").record().trials == sqlite.trials
    assert not list(Path().iterdir())


def test_resuming_keeps_to_the_storage_it_began_with(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = run(tmp_path, config(), storage=url)
    again = FakeEvaluator()
    assert run(tmp_path, config(), again).trials == first.trials
    assert again.calls == 0
    with pytest.raises(UserError, match="is recorded in"):
        run(tmp_path, config(), storage=f"sqlite:///{tmp_path / 'y.db'}")


def test_a_storage_that_is_gone_is_not_made_anew_by_reading(tmp_path: Path) -> None:
    run(tmp_path, config())
    (tmp_path / "s" / "journal.log").unlink()
    with pytest.raises(UserError, match="the study's storage does not exist"):
        StudyStore.open(tmp_path, "s").record()
    assert not (tmp_path / "s" / "journal.log").exists()


def test_a_damaged_head_is_reported(tmp_path: Path) -> None:
    run(tmp_path, config())
    (tmp_path / "s" / "study.yaml").write_text("just text")
    with pytest.raises(UserError, match=r"study\.yaml: damaged"):
        StudyStore.open(tmp_path, "s")


def test_latencies_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    measured = config(objectives=["reconstruction_loss", "latency_ms"])
    store, space = StudyStore(tmp_path / "s"), SearchSpace.load("quickstart")
    store.create(measured, space, ENVIRONMENT)
    with pytest.raises(
        UserError, match=r'measured in another environment \(torch_version was "2.13.0"'
    ):
        store.create(measured, space, {**ENVIRONMENT, "torch_version": "2.14.0"})


def test_limits_that_need_measuring_are_given_up_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(FakeEvaluator):
        def __call__(self, architecture: Any, known: Any = None) -> Any:
            for findings in super().__call__(architecture, known):
                values = {**findings.objectives, "latency_ms": 3.0 + self.calls}
                yield type(findings)(findings.step, values)

    asked = config(limits={"latency_ms": 0.1})
    space, store = SearchSpace.load("quickstart"), StudyStore(tmp_path / "s")
    store.create(asked, space, ENVIRONMENT)
    driver = Runner(asked, space, store, Alone(Slow()))
    record = driver.run()
    rejected = sum(trial.state == "rejected" for trial in record.trials)
    assert rejected == limits.MAX_MEASURED_REJECTIONS
    assert "smallest values among them are latency_ms 6" in (driver.gave_up or "")
