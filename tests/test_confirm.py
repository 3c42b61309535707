"""Confirmation: which models are trained again, how it is recorded, resumed and shown."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from nas.checkpoint import load_vae
from nas.datasets import DataConfig, load_dataset
from nas.protocol import TrainingConfig, evaluate
from nas.search import Proposer, make_proposer
from nas.search.surrogate import ENOUGH
from profiling.locks import try_lock
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.config.loading import load_config
from studies.confirm.candidates import fitted_losses, promising
from studies.confirm.plan import Plan
from studies.record.records import SeedRun, StudyRecord, TrialRecord
from studies.store.store import StudyStore
from tests.fakes.records import study as made_up
from tests.fakes.records import trial, with_findings
from tests.helpers.command import nas

pytestmark = pytest.mark.usefixtures("untrained_counts", "narrow_references")

LOSS = "reconstruction_loss"
RUN = ["study", "run", "quickstart", "--space", "tiny", "--trials", "2", "--epochs", "1"]
RUN += ["--images", "30", "--objectives", f"{LOSS},params", "--name", "s"]
RUN += ["--set", "training.batch_size=16", "--workers", "1", "--threads", "1"]
CONFIRMED = ["--set", "confirmation={seeds: 2, top: 1}"]


# -- Which models ------------------------------------------------------------------------------


def plan(**changes: object) -> Plan:
    usual = Plan(3, 2, 2, (), ("original", "modified"), {})
    return replace(usual, **changes)  # type: ignore[arg-type]


def record(*trials: TrialRecord) -> StudyRecord:
    return replace(made_up(*trials), config={"training": {"seed": 7}}).with_intervals()


def again(one: TrialRecord, *losses: float) -> TrialRecord:
    runs = [SeedRun(8 + index, {LOSS: loss}) for index, loss in enumerate(losses)]
    return one.with_runs(runs)


ORIGINAL, MODIFIED = trial(0, 0.50, 1000, "original"), trial(1, 0.60, 900, "modified")
SMALL, GOOD, POOR = trial(2, 0.55, 10), trial(3, 0.40, 500), trial(4, 0.70, 600)


def done(asked: Plan, study: StudyRecord) -> list[tuple[str, int]]:
    """Return the trainings that are begun at once, in order."""
    running: list[tuple[str, int]] = []
    names = []
    while (following := asked.next(study, running)) and len(running) < 50:
        one, seed = following
        running.append((one.digest, seed))
        names.append((one.name, seed))
    return names


def test_references_and_the_best_get_two_seeds_of_their_own_first() -> None:
    study = record(ORIGINAL, MODIFIED, SMALL, GOOD, POOR)
    first = done(plan(seeds=2), study)
    # 3 dominates `original`; of the references, the training of the search counts.
    assert first[:2] == [("#3", 8), ("#2", 8)]
    assert sorted(first[2:]) == [("#2", 9), ("#3", 9), ("modified", 8), ("original", 8)]
    assert plan(seeds=2).most(study) == 6


def test_one_seed_for_each_where_no_more_is_allowed() -> None:
    study = record(ORIGINAL, MODIFIED, SMALL, GOOD)
    assert [seed for _, seed in done(plan(seeds=1), study)] == [8, 8, 8, 8]
    assert plan(seeds=1).most(study) == 4  # one of each reference, so that there is a noise


def test_no_more_models_are_begun_than_allowed() -> None:
    study = record(ORIGINAL, MODIFIED, SMALL, again(GOOD, 0.45, 0.46))
    assert {name for name, _ in done(plan(top=1, seeds=2), study)} == {"original", "modified"}
    assert {name for name, _ in done(plan(top=2, seeds=2), study)} == {"original", "modified", "#2"}


def test_further_seeds_go_where_the_order_is_not_sure() -> None:
    sure = (again(ORIGINAL, 0.501), again(MODIFIED, 0.601), again(GOOD, 0.40, 0.401))
    assert done(plan(top=1), record(*sure)) == []
    close = again(GOOD, 0.500, 0.502)  # tied with `original`, but not with `modified`
    assert done(plan(top=1), record(*sure[:2], close)) == [("original", 9), ("#3", 10)]
    assert done(plan(top=1, seeds=2), record(*sure[:2], close)) == []


def test_asked_trials_get_their_seeds_whatever_the_ranks() -> None:
    study = record(ORIGINAL, MODIFIED, SMALL, GOOD, POOR)
    asked = plan(numbers=(4,), references=(), first=3)
    assert done(asked, study) == [("#4", 8), ("#4", 9), ("#4", 10)]
    assert asked.most(study) == 3


def test_a_failed_training_is_not_repeated() -> None:
    failed = GOOD.with_runs([SeedRun(8, reason="diverged")])
    study = record(ORIGINAL, failed)
    assert ("#3", 8) not in done(plan(seeds=2, top=1), study)


def searched(count: int) -> tuple[SearchSpace, StudyRecord]:
    space = SearchSpace.load("quickstart")
    assignments = list(space.enumerate())[: 7 * count : 7]
    trials = [
        trial(n, 0.5 + 0.01 * (n % 3), 100 + n, assignment=assignment)
        for n, assignment in enumerate(assignments)
    ]
    return space, record(*trials)


def test_the_fit_smooths_the_luck_of_one_training() -> None:
    space, study = searched(20)
    lucky = study.trials[0]
    trials = [with_findings(lucky, objectives={**lucky.objectives, LOSS: 0.3}), *study.trials[1:]]
    fitted = fitted_losses(record(*trials), space)
    assert fitted.keys() == {one.number for one in trials}
    assert fitted[0] > 0.3
    confirmed = [again(trials[0], 0.9), *trials[1:]]
    assert fitted_losses(record(*confirmed), space) == fitted  # it is of what the search saw


def test_of_many_candidates_the_front_and_an_even_selection_are_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space, study = searched(40)
    monkeypatch.setattr("studies.confirm.candidates.MOST_POINTS", 20)
    fitted = fitted_losses(study, space)
    assert 10 <= len(fitted) <= 20
    assert {one.number for one in study.front} <= fitted.keys()


def test_without_enough_candidates_there_is_no_fit() -> None:
    space, study = searched(ENOUGH - 1)
    assert fitted_losses(study, space) == {}


def test_the_front_by_the_fitted_losses_is_promising_too() -> None:
    study = record(ORIGINAL, SMALL, GOOD, POOR)
    assert [one.number for one in promising(study, {})] == [3, 2]
    fitted = {2: 0.55, 3: 0.45, 4: 0.35}
    assert [one.number for one in promising(study, fitted)] == [3, 4, 2]


# -- Configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["seeds", "top"])
def test_a_confirmation_of_nothing_is_refused_and_says_how_to_switch_it_off(key: str) -> None:
    with pytest.raises(UserError, match=rf"confirmation\.{key}: .*write confirmation: null"):
        load_config("quickstart", {f"confirmation.{key}": 0})
    assert load_config("quickstart", {"confirmation": None}).confirmation is None
    assert load_config("wide").confirmation is not None


def test_the_old_command_points_to_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("study", "retrain", "s", "--seeds", "3") == 2
    assert "nas study retrain is now: nas study confirm NAME" in capsys.readouterr().err


# -- Real trainings ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with a study that has confirmed its best model with two seeds."""
    root = tmp_path_factory.mktemp("studies")
    store = ["--artefacts", f"file://{root / 'store'}"]
    assert nas(*RUN, *CONFIRMED, *store, "--root", str(root)) == 0
    return root


def of(root: Path) -> StudyRecord:
    return StudyStore.open(root, "s").record()


@pytest.mark.slow
def test_a_study_confirms_its_best_and_both_references(root: Path) -> None:
    study = of(root)
    confirmed = [one for one in study.complete if one.confirmed]
    assert {one.name for one in confirmed} > {"original", "modified"}
    assert len(confirmed) == 3
    assert {one.reference: [run.seed for run in one.runs] for one in confirmed} == {
        "original": [1],
        "modified": [1],
        None: [1, 2],
    }
    assert study.noise is not None
    assert (study.noise.models, study.noise.trainings) == (3, 6)


@pytest.mark.slow
def test_each_training_is_that_of_its_seed_and_judged_on_both_parts(root: Path) -> None:
    store, study = StudyStore.open(root, "s"), of(root)
    dataset = load_dataset(DataConfig.model_validate(study.config["data"]), study.image_size)
    one = next(one for one in study.complete if one.confirmed and not one.reference)
    for run in one.runs:
        model = load_vae(store.confirmed_weights(one.digest, run.seed))
        config = TrainingConfig.model_validate({**study.config["training"], "seed": run.seed})
        for part, told in ((dataset.validation, run.validation), (dataset.test, run.test)):
            judged = evaluate(model, dataset, part, config)
            assert told[LOSS] == pytest.approx(judged.reconstruction)
            assert told["total_loss"] == pytest.approx(judged.total)
    assert one.objectives[LOSS] == pytest.approx(fmean(run.validation[LOSS] for run in one.runs))
    assert not list((root / "s").rglob("*checkpoint*"))


@pytest.mark.slow
def test_the_same_command_trains_nothing_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = of(root)
    assert nas(*RUN, *CONFIRMED, "--root", str(root)) == 0
    assert "confirming" not in capsys.readouterr().err
    assert of(root) == before


@pytest.mark.slow
def test_a_search_that_goes_on_is_told_the_noise(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float | None] = []

    def made(*arguments: Any, noise: float | None, **options: Any) -> Proposer:
        told.append(noise)
        return make_proposer(*arguments, noise=noise, **options)

    monkeypatch.setattr("studies.run.search.make_proposer", made)
    shutil.copytree(root / "s", tmp_path / "s")
    assert nas(*RUN, *CONFIRMED, "--trials", "3", "--root", str(tmp_path)) == 0
    noise = of(root).noise
    assert noise is not None
    assert told == [noise.deviation]


@pytest.mark.slow
def test_report_and_terminal_show_confirmed_means(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = of(root)
    one = next(one for one in study.complete if one.confirmed and not one.reference)
    low, high = one.intervals[LOSS]
    assert nas("study", "show", "s", "--root", str(root)) == 0
    told = capsys.readouterr().out
    assert f"{one.objectives[LOSS]:.4f} ±{(high - low) / 2:.4f}" in told
    assert "6 trainings of 3 models" in " ".join(told.split())
    page = (root / "s" / "report.html").read_text(encoding="utf-8")
    assert f"<small>{low:.4f} to {high:.4f}</small>" in page
    assert f"{one.metrics[f'{LOSS}_on_test']:.4f}" in page
    assert 'id="plot-confirmation"' in page


@pytest.mark.slow
def test_best_exports_the_weights_of_the_best_training(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("study", "best", "s", "--root", str(root), "-o", str(tmp_path / "b")) == 0
    told = " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    one = of(root).trial(result["trial"])
    assert one.confirmed
    losses = {run.seed: run.validation["total_loss"] for run in one.runs}
    losses[0] = one.metrics["total_loss_in_search"]
    best = min(losses, key=losses.__getitem__)
    store = StudyStore.open(root, "s")
    its = store.confirmed_weights(one.digest, best)
    source = its if best else store.artefacts / one.digest / its.name
    assert (tmp_path / "b" / its.name).read_bytes() == source.read_bytes()
    assert ("of the search" if not best else f"of seed {best}") in told


@pytest.mark.slow
def test_weights_of_further_trainings_are_in_the_store_of_artefacts(
    root: Path, tmp_path: Path
) -> None:
    one = next(one for one in of(root).complete if one.confirmed and not one.reference)
    shutil.copytree(root / "s", tmp_path / "s", ignore=shutil.ignore_patterns("confirmed"))
    store = StudyStore.open(tmp_path, "s")
    for run in one.runs:
        its = store.confirmed_weights(one.digest, run.seed)
        assert not its.exists()
        store.fetch_confirmed(one.digest, run.seed)
        theirs = StudyStore.open(root, "s").confirmed_weights(one.digest, run.seed)
        assert its.read_bytes() == theirs.read_bytes()
    assert not list(root.glob("store-confirmed/**/*checkpoint*"))


@pytest.mark.slow
def test_more_seeds_are_added_to_the_same_study(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "s", tmp_path / "s")
    before = of(tmp_path)
    command = ["study", "confirm", "s", "--seeds", "3", "--top", "1", "--root", str(tmp_path)]
    assert nas(*command, "--reference", "original") == 0
    after = {one.name: len(one.runs) for one in of(tmp_path).complete}
    was = {one.name: len(one.runs) for one in before.complete}
    found = next(one.name for one in before.complete if one.runs and not one.reference)
    assert after == {**was, "original": 2, found: 3}


@pytest.mark.slow
def test_two_processes_do_not_confirm_one_study(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (root / "s" / "confirmed" / "lock").open("a") as file:
        assert try_lock(file)
        assert nas("study", "confirm", "s", "--seeds", "9", "--root", str(root)) == 2
    assert "another process is confirming this study" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_workers_confirm_as_the_driver_does(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "s", tmp_path / "s")
    study = of(root)
    command = [*RUN, *CONFIRMED, "--workers", "2", "--set", "confirmation.seeds=3"]
    assert nas(*command, "--root", str(tmp_path)) == 0
    after = of(tmp_path)
    assert sum(len(one.runs) for one in after.complete) > sum(len(o.runs) for o in study.complete)


@pytest.mark.slow
def test_a_killed_confirmation_loses_no_finished_training(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.helpers.narrow",
        "studies.cli.main",
        *RUN,
        *CONFIRMED,
        "--root",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("confirming: "))
        process.send_signal(signal.SIGKILL)
    begun = {one.number: one.runs for one in of(tmp_path).complete if one.runs}
    assert 0 < sum(map(len, begun.values())) < 4
    assert nas(*RUN, *CONFIRMED, "--root", str(tmp_path)) == 0
    after = of(tmp_path)
    assert sum(len(one.runs) for one in after.complete) == 4
    assert not list((tmp_path / "s").rglob("*.part"))
    for number, runs in begun.items():  # they are those of before, with their durations
        assert after.trial(number).runs[: len(runs)] == runs
