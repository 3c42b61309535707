"""Confirmation with a budget of its own: judged on the test images, kept and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from nas.checkpoint import load_vae
from nas.datasets import DataConfig, load_dataset
from nas.evaluate import prior_samples, reconstructions
from nas.floors import Floors, compute_floors
from nas.protocol import TrainingConfig, evaluate
from nas.training import Trainer, TrainingDiverged
from profiling.locks import try_lock
from studies.confirm import retraining
from studies.confirm.results import Budget, Results
from studies.record.noise import Mean, SeedNoise
from studies.store.store import StudyStore
from tests.helpers.command import nas

RUN = ["study", "run", "quickstart", "--space", "tiny", "--trials", "2", "--epochs", "1"]
RUN += ["--images", "30", "--objectives", "reconstruction_loss,params", "--name", "s"]
RUN += ["--set", "confirmation=null", "--workers", "1", "--threads", "1"]
AGAIN = ["study", "confirm", "s", "--epochs", "2", "--threads", "1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("untrained_counts", "narrow_references"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root with a study whose best was retrained with two seeds."""
    root = tmp_path_factory.mktemp("studies")
    assert nas(*RUN, "--root", str(root)) == 0
    assert nas(*AGAIN, "--seeds", "2", "--top", "1", "--root", str(root)) == 0
    return root


def results(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (root / "s" / "retrained" / "results.json").read_text()
    )["runs"]
    return found


def losses_by_model(runs: list[dict[str, Any]]) -> list[list[float]]:
    found: dict[str, list[float]] = {}
    for run in runs:
        found.setdefault(run["digest"], []).append(run["test"]["reconstruction"])
    return list(found.values())


def numbers(losses: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in losses.items() if isinstance(value, float)}


def test_every_seed_is_judged_by_the_test_images_alone(root: Path) -> None:
    study = StudyStore.open(root, "s").record()
    runs = results(root)
    assert [run["seed"] for run in runs] == [0] * 3 + [1] * 3  # a seed for all before the next
    assert {run["digest"] for run in runs} > {t.digest for t in study.references.values()}
    data = DataConfig.model_validate(study.config["data"])
    dataset = load_dataset(data, study.image_size)
    for run in (runs[2], runs[5]):
        folder = root / "s" / "retrained" / "artefacts" / str(run["digest"])
        model = load_vae(folder / f"weights-{run['seed']}-0.01.safetensors")
        config = TrainingConfig.model_validate({**study.config["training"], "seed": run["seed"]})
        judged = evaluate(model, dataset, dataset.test, config)
        assert numbers(run["test"]) == pytest.approx(numbers(vars(judged)))
    assert not list((root / "s" / "retrained").rglob("*checkpoint*"))


def test_a_checkpoint_whose_process_died_is_removed_with_its_run_in_the_results(root: Path) -> None:
    run = results(root)[0]
    left = root / "s" / "retrained" / f"{run['digest']}-{run['seed']}-0.01.checkpoint.safetensors"
    left.touch()
    assert nas(*AGAIN, "--seeds", "2", "--top", "1", "--root", str(root)) == 0
    assert not left.exists()


def test_the_report_tells_means_and_spans_of_seeds(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results(root)
    assert nas(*AGAIN, "--seeds", "2", "--top", "1", "--root", str(root)) == 0
    assert results(root) == before  # nothing was trained again
    told = capsys.readouterr().out
    first = [run for run in before if run["digest"] == before[0]["digest"]]
    losses = [run["test"]["reconstruction"] for run in first]
    assert f"{fmean(losses):.4f}" in told
    assert "with 2 seeds each" in told
    page = (root / "s" / "retrained" / "report.html").read_text()
    noise = SeedNoise.pooled(losses_by_model(before))
    assert noise is not None
    low, high = noise.interval(Mean(fmean(losses), 2))
    assert f"{low:.4f} to {high:.4f}" in page
    assert 'href="retrained/report.html"' in (root / "s" / "report.html").read_text()


def test_its_figures_are_written_beside_its_report(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def drawn(_panels: object, folder: Path) -> list[Path]:
        asked.append(folder)
        return []

    monkeypatch.setattr("studies.report.report.draw_panels", drawn)
    assert nas(*AGAIN, "--seeds", "2", "--top", "1", "--png", "--root", str(root)) == 0
    assert asked == [root / "s" / "retrained" / "figures"]
    assert "retrained/figures (0 PNGs)" in capsys.readouterr().out


def test_more_seeds_and_trials_are_added_to_the_same_budget(root: Path) -> None:
    before = results(root)
    assert nas(*AGAIN, "--seeds", "3", "--top", "1", "--root", str(root)) == 0
    assert results(root)[: len(before)] == before
    assert len(results(root)) == len(before) + 3


def test_a_reference_can_be_left_out_without_changing_who_is_best(root: Path) -> None:
    study = StudyStore.open(root, "s").record()
    both, one = retraining.chosen(study, 2), retraining.chosen(study, 2, names=["modified"])
    assert [trial.reference for trial in one if trial.reference] == ["modified"]
    assert one[1:] == both[2:] != []
    assert retraining.chosen(study, 2, names=["none"]) == both[2:]


def test_another_budget_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "confirm", "s", "--epochs", "3", "--root", str(root)]
    assert nas(*command) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "made with training.epochs 2" in told
    assert "results.json" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trial", "99"], "has no complete trial 99"),
        (["--set", "search.trials=3"], "only keys of data.* and training.*"),
        (["--set", "training.epochs=none"], "training.epochs"),
        (["--images", "0"], "data.count"),
    ],
)
def test_faults_are_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert nas("study", "confirm", "s", *options, "--root", str(root)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_two_processes_do_not_confirm_one_study(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (root / "s" / "retrained" / "lock").open("a") as file:
        assert try_lock(file)
        assert nas(*AGAIN, "--seeds", "9", "--top", "1", "--root", str(root)) == 2
    assert "another process is confirming this study" in " ".join(capsys.readouterr().err.split())


def test_each_model_keeps_the_learning_rate_that_suits_it(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(root / "s", tmp_path / "s", ignore=shutil.ignore_patterns("retrained"))
    rates = ["--learning-rate", "1e-6", "--learning-rate", "2e-3", "--reference", "original"]
    command = [*AGAIN, "--seeds", "2", "--top", "1", *rates, "--root", str(tmp_path)]
    assert nas(*command) == 0
    runs = results(tmp_path)
    study = StudyStore.open(tmp_path, "s").record()
    dataset = load_dataset(DataConfig.model_validate(study.config["data"]), study.image_size)
    assert [(run["seed"], run["learning_rate"]) for run in runs[:2]] == [(0, 1e-6), (0, 2e-3)]
    for digest in {run["digest"] for run in runs}:
        tried = [run for run in runs if run["digest"] == digest]
        losses = {
            run["learning_rate"]: run["history"][run["best_epoch"] - 1]["validation_loss"]
            for run in tried[:2]
        }
        best = min(losses, key=losses.__getitem__)
        assert [run["learning_rate"] for run in tried[2:]] == [best]
        folder = tmp_path / "s" / "retrained" / "artefacts" / digest
        model = load_vae(folder / f"weights-0-{best:g}.safetensors")
        shown = np.load(folder / "reconstructions.npy")
        np.testing.assert_array_equal(shown, reconstructions(model, dataset))
        samples = np.load(folder / "prior_samples.npy")
        np.testing.assert_array_equal(samples, prior_samples(model, len(shown)))
    out = capsys.readouterr()
    assert "6 of 6: " in out.err
    assert "at the learning rate of 1e-06, 0.002 that gave the lowest" in " ".join(out.out.split())


def test_an_interrupted_training_goes_on_from_its_last_epoch(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(StudyStore.open(root, "s").record(), folder=tmp_path)
    data = DataConfig.model_validate(study.config["data"])
    training = TrainingConfig.model_validate({**study.config["training"], "epochs": 2})
    budget = Budget(data, training, (training.learning_rate,))
    dataset = load_dataset(data, study.image_size)
    epochs: list[int] = []

    def run(stop: bool) -> Results:
        kept = Results(study, budget, {"images": {"test": len(dataset.test)}})
        epoch = Trainer._epoch

        def counted(trainer: Trainer, number: int, on_batch: object) -> object:
            if stop and number == 2:
                raise KeyboardInterrupt
            epochs.append(number)
            return epoch(trainer, number, on_batch)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_epoch", counted)
            retraining.retrain(
                kept, study.complete[:1], [0], dataset, torch.device("cpu"), 1,
                lambda trial, seed: lambda done, total: None, lambda trial, run: None,
            )  # fmt: skip
        return kept

    with pytest.raises(KeyboardInterrupt):
        run(stop=True)
    whole = run(stop=False)
    assert epochs == [1, 2]
    digest = study.complete[0].digest
    there = [r for r in results(root) if (r["digest"], r["seed"]) == (digest, 0)]
    assert whole.runs[0].test == pytest.approx(there[0]["test"])


def test_a_training_that_diverges_is_one_line_and_loses_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverge(*_: object) -> None:
        raise TrainingDiverged("epoch 1, batch 2 of 3: the loss is nan")

    before = results(root)
    monkeypatch.setattr(Trainer, "_epoch", diverge)
    command = [*AGAIN, "--seeds", "9", "--top", "1", "--root", str(root)]
    assert nas(*command) == 2
    told = " ".join(capsys.readouterr().err.split())
    new = max(run["seed"] for run in before) + 1  # other tests may have added seeds
    failed = f"original, seed {new}, learning rate 0.01: epoch 1, batch 2 of 3: the loss is nan"
    assert failed in told
    assert results(root) == before


def test_losses_on_test_images_are_judged_by_the_floors_of_these(
    root: Path, tmp_path: Path
) -> None:
    study = StudyStore.open(root, "s").record()
    assert study.floors is not None
    made = json.loads((root / "s" / "retrained" / "results.json").read_text())
    data, training = DataConfig(**made["data"]), TrainingConfig(**made["training"])
    facts = {key: made[key] for key in ("data_fingerprint", "images", "device_name")}
    budget = Budget(data, training, tuple(made["learning_rates"]))
    assert Results(study, budget, facts).record(study).floors == study.floors.on("test")
    elsewhere = replace(study, folder=tmp_path)
    for other in (
        replace(budget, training=training.model_copy(update={"ssim": "uniform"})),
        replace(budget, data=data.model_copy(update={"split_seed": 1})),
    ):
        assert Results(elsewhere, other, facts).record(elsewhere).floors is None


def test_other_images_get_floors_of_their_own(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "s", tmp_path / "s")
    shutil.rmtree(tmp_path / "s" / "retrained")
    command = [*AGAIN, "--seeds", "1", "--top", "1", "--images", "40", "--root", str(tmp_path)]
    assert nas(*command) == 0
    study = StudyStore.open(tmp_path, "s").record()
    dataset = load_dataset(DataConfig(count=40), study.image_size)
    path = tmp_path / "s" / "retrained" / "results.json"
    made = json.loads(path.read_text())
    trained = {run["digest"] for run in made["runs"]}
    sizes = {t.architecture.latent_size for t in study.complete if t.digest in trained}
    floors = compute_floors(dataset, TrainingConfig(), sizes)
    shown = capsys.readouterr().out
    assert f"{floors.test.mean.reconstruction:.4f}" in shown
    assert study.floors is not None
    assert f"{study.floors.test.mean.reconstruction:.4f}" not in shown
    stored = Floors.from_dict(made["floors"])
    assert list(stored.test.pca) == list(floors.test.pca) == sorted(sizes)
    for size, floor in stored.test.pca.items():  # the number of threads changes the last digits
        assert asdict(floor) == pytest.approx(asdict(floors.test.pca[size]))
    assert nas(*command) == 0  # and they are read again, not computed
    assert capsys.readouterr().out == shown
    del made["floors"]["test"]
    path.write_text(json.dumps(made))
    assert nas(*command) == 2
    assert "damaged" in capsys.readouterr().err
