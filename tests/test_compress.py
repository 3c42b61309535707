"""`nas compress` on a small real study: what it writes, resumes and refuses."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.checkpoint import load_vae
from nas.compress.narrowing import narrowed
from nas.compress.pruning import prune
from nas.datasets import DataConfig, load_dataset
from nas.deploy.variants import Variant
from nas.evaluate import static_costs
from nas.protocol import TrainingConfig, evaluate
from nas.training import Trainer
from profiling.locks import try_lock
from studies.record.compressed import FOLDER, Stage, read_stages
from studies.store.store import StudyStore
from tests.fakes.parts import Parts
from tests.helpers.command import nas

RUN = ["study", "run", "quickstart", "--space", "tiny", "--trials", "2", "--epochs", "2"]
RUN += ["--images", "30", "--name", "s", "--objectives", "reconstruction_loss,params"]
RUN += ["--set", "confirmation=null", "--set", "latency.max_rounds=2", "--threads", "1"]
RUN += ["--set", "training.batch_size=16"]
RUN += ["--set", "latency.min_rounds=2", "--set", "latency.attempts=1", "--workers", "1"]
BOTH = ["compress", "s#2", "--prune", "0.5", "--distil", "original,#3", "--epochs", "1"]
BOTH += ["--threads", "1"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("untrained_counts", "narrow_references", "cache"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, cache: None) -> Path:
    """A root with a study; nothing of it is compressed."""
    root = tmp_path_factory.mktemp("searched")
    assert nas(*RUN, "--root", str(root)) == 0
    return root


@pytest.fixture(scope="module")
def done(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the study, of which a trial was pruned and distilled with two seeds."""
    root = tmp_path_factory.mktemp("done")
    shutil.copytree(searched / "s", root / "s")
    assert nas(*BOTH, "--seeds", "2", "--root", str(root)) == 0
    return root


@pytest.fixture
def root(searched: Path, tmp_path: Path) -> Path:
    shutil.copytree(searched / "s", tmp_path / "s")
    return tmp_path


def stages(root: Path) -> list[Stage]:
    found, damaged = read_stages(root / "s")
    assert damaged == []
    return found


def place(root: Path, stage: Stage) -> Path:
    return root / "s" / FOLDER / stage.name


def without_times(stage: Stage) -> dict[str, Any]:
    found = stage.model_dump(exclude={"costs", "source"})
    for training in found["trainings"]:
        del training["duration_s"]
    return found


def test_each_stage_has_its_trainings_and_controls(done: Path) -> None:
    pruned, distilled = stages(done)
    roles = [(one.role, one.seed, one.epochs) for one in pruned.trainings]
    assert roles == [
        ("source", 0, 2), ("cut", 0, 0),
        ("pruned", 1, 1), ("scratch", 1, 3), ("pruned", 2, 1), ("scratch", 2, 3),
    ]  # fmt: skip
    assert [(one.role, one.seed) for one in distilled.trainings] == [
        ("distilled", 1), ("control", 1), ("distilled", 2), ("control", 2),
        ("longer", 1), ("longer", 2),
    ]  # fmt: skip
    assert all(one.epochs > 1 for one in distilled.of("longer"))
    assert (pruned.after, distilled.after) == (None, pruned.name)
    assert pruned.title == "#2 pruned to 50 % of its widths"
    assert distilled.title == "#2 pruned to 50 % of its widths, distilled from original and #3"


def test_the_models_are_judged_on_validation_and_test_images(done: Path) -> None:
    study = StudyStore.open(done, "s").record()
    dataset = load_dataset(DataConfig.model_validate(study.config["data"]), study.image_size)
    for stage in stages(done):
        for training in stage.of(stage.words.result):
            model = load_vae(place(done, stage) / f"{training.role}-{training.seed}.safetensors")
            settings = {**study.config["training"], "seed": training.seed}
            config = TrainingConfig.model_validate(settings)
            for part, found in (
                (dataset.validation, training.validation), (dataset.test, training.test)
            ):  # fmt: skip
                judged = evaluate(model, dataset, part, config)
                assert found["total_loss"] == pytest.approx(judged.total, rel=1e-4)
                assert found["reconstruction_loss"] == pytest.approx(
                    judged.reconstruction, rel=1e-4
                )


def test_the_trained_model_is_pruned_and_costs_are_those_of_the_result(done: Path) -> None:
    study, (stage, further) = StudyStore.open(done, "s").record(), stages(done)
    trial = study.trial(2)
    wide = load_vae(done / "s" / "artefacts" / trial.digest / "weights.safetensors")
    assert stage.architecture == narrowed(trial.architecture, 0.5)
    cut = load_vae(place(done, stage) / "cut.safetensors")
    expected = dict(prune(wide, stage.architecture).named_parameters())
    assert all(torch.equal(one, expected[name]) for name, one in cut.named_parameters())
    for costs, architecture in (
        (stage.source, trial.architecture), (stage.costs, stage.architecture)
    ):  # fmt: skip
        assert static_costs(architecture).items() <= costs.values.items()
        low, high = costs.intervals["latency_ms"]
        assert low <= costs.values["latency_ms"] <= high
    middle, low, high = stage.costs.over_source["latency_ms"]
    assert low <= middle <= high
    assert further.costs == stage.costs


def test_the_best_model_is_written_as_best_writes_it(done: Path) -> None:
    for stage in stages(done):
        folder, best = place(done, stage), stage.best
        assert best.validation["total_loss"] == min(
            one.validation["total_loss"] for one in stage.of(stage.words.result)
        )
        assert load_vae(folder / "weights.safetensors").architecture == stage.architecture
        result = json.loads((folder / "result.json").read_text())
        assert (result["study"], result["trial"], result["seed"]) == ("s", 2, best.seed)
        assert result["objectives"]["params"] == stage.costs.values["params"]
        assert result["on_test"]["ssim"] == best.test["ssim"]
        assert (folder / "architecture.json").read_text() == stage.architecture.to_json() + "\n"
    assert not list((done / "s" / FOLDER).rglob("*checkpoint*"))


def test_the_pages_show_the_stages(done: Path) -> None:
    for name in (f"{FOLDER}/report.html", "report.html"):
        page = (done / "s" / name).read_text()
        assert "#2 pruned to 50 % of its widths, distilled from original and #3" in page
    assert "After the search" in (done / "s" / "report.html").read_text()


def test_the_same_command_trains_nothing_again(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stages(done)
    left = place(done, before[0]) / "pruned-1.checkpoint.safetensors"
    left.touch()  # of a process that died before it removed it
    monkeypatch.setattr(Trainer, "_step", None)
    assert nas(*BOTH, "--seeds", "2", "--root", str(done)) == 0
    assert stages(done) == before
    assert not left.exists()
    said = capsys.readouterr().out
    assert "#2 pruned to 50 % of its widths" in said
    assert "no teacher, trained longer by its time" in said


def test_seeds_are_added_to_the_same_stages(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "s", tmp_path / "s")
    before = stages(tmp_path)
    assert nas(*BOTH, "--seeds", "3", "--root", str(tmp_path)) == 0
    for old, new in zip(before, stages(tmp_path), strict=True):
        assert new.trainings[: len(old.trainings)] == old.trainings
        further = {one.role for one in new.trainings[len(old.trainings) :]}
        assert further == {old.words.result, *old.words.controls}
        assert {one.epochs for one in new.of("longer")} == {one.epochs for one in old.of("longer")}


def test_a_command_that_a_signal_ended_resumes(
    done: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, steps = Trainer._step, 0

    def interrupted(self: Trainer, *arguments: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 5:  # in the second epoch of the control, whose first one is in its checkpoint
            signal.raise_signal(signal.SIGTERM)
        return step(self, *arguments)

    command = [*BOTH, "--seeds", "1", "--root", str(root)]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupted)
        assert nas(*command) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "The same command resumes: nas" in said
    (begun,) = stages(root)
    assert [one.role for one in begun.trainings] == ["source", "cut", "pruned"]
    assert (place(root, begun) / "scratch-1.checkpoint.safetensors").exists()
    assert nas(*command) == 0
    assert stages(root)[0].trainings[:3] == begun.trainings
    for ours, whole in zip(stages(root), stages(done), strict=True):
        expected, found = without_times(whole), without_times(ours)
        kept = [one for one in expected["trainings"] if one["seed"] < 2]
        if ours.kind == "prune":
            assert found == {**expected, "trainings": tuple(kept)}


def test_a_killed_command_loses_no_finished_training(root: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.helpers.narrow",
        "studies.cli.main",
        *BOTH,
        "--seeds",
        "1",
    ]
    command += ["--root", str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "pruned, trained further" in line)
        process.send_signal(signal.SIGKILL)
    (begun,) = stages(root)
    assert begun.of("pruned")
    assert nas(*BOTH, "--seeds", "1", "--root", str(root)) == 0
    pruned, distilled = stages(root)
    assert pruned.trainings[: len(begun.trainings)] == begun.trainings
    assert {one.role for one in distilled.trainings} == {"distilled", "control", "longer"}
    assert not list((root / "s").rglob("*.part"))


def test_students_begin_with_new_weights_without_pruning(root: Path) -> None:
    distil = ["compress", "s#2", "--distil", "s#original", "--epochs", "1", "--seeds", "1"]
    assert nas(*distil, "--threads", "1", "--root", str(root)) == 0
    (stage,) = stages(root)
    trial = StudyStore.open(root, "s").record().trial(2)
    assert stage.architecture == trial.architecture
    assert [one.role for one in stage.trainings] == ["source", "distilled", "control", "longer"]
    assert stage.of("source")[0].trained == 2
    assert stage.costs.values == static_costs(trial.architecture)  # no latency was measured


def test_a_damaged_record_is_refused_and_left(
    done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done / "s", tmp_path / "s")
    record = place(tmp_path, stages(tmp_path)[0]) / "record.json"
    record.write_text("{")
    assert nas(*BOTH, "--root", str(tmp_path)) == 2
    assert "remove its folder to begin the stage again" in capsys.readouterr().err
    assert record.read_text() == "{"
    assert nas("study", "report", "s", "--root", str(tmp_path)) == 0
    assert "damaged (" in (tmp_path / "s" / "report.html").read_text()


def test_another_process_is_not_disturbed(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (done / "s" / FOLDER / "lock").open("a") as file:
        assert try_lock(file)
        assert nas(*BOTH, "--root", str(done)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "another process is compressing models of this study" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["s#2"],
            "give at least one stage: --prune SHARE|ARCH, --distil TEACHER or --quantize VARIANT",
        ),
        (["s", "--prune", "0.5"], "s: is no trial; give STUDY#TRIAL"),
        (["s#99", "--prune", "0.5"], "study 's' has trials 0 to 3 and no '99'"),
        (["s#2", "--prune", "0"], "--prune 0: give a share above 0 and below 1"),
        (["s#2", "--prune", "1.0"], "--prune 1.0: give a share above 0 and below 1"),
        (["s#2", "--prune", "1e999"], "--prune 1e999: give a share above 0 and below 1"),
        (["s#2", "--prune", "1e"], "--prune 1e: give a share above 0 and below 1"),
        (["s#2", "--prune", "0.99"], "--prune 0.99: #2 keeps all its channels and layers"),
        (["s#2", "--prune", "original@32"], "--prune original@32: "),
        (["s#2", "--prune", "half"], "'half' is not an architecture"),
        (["s#2", "--prune", "missing.json"], "missing.json"),
        (["s#2", "--quantize", "int4"], "--quantize: 'int4' is not one of int8, bfloat16, onnxrun"),
        (["s#2", "--quantize", "openvino-int9"], "did you mean 'openvino-int8'?"),
        (["s#2", "--quantize", "openvino-float32"], "--quantize: 'openvino-float32' is not one of"),
        (["s#2", "--distil", "#77"], "study 's' has trials 0 to 3 and no '77'"),
        (["s#2", "--distil", "no#0"], "no study 'no' in"),
        (["s#2", "--distil", "original,original"], "'original' is given twice"),
        (["s#2", "--prune", "0.5", "--seeds", "0"], "--seeds"),
        (["s#2", "--prune", "0.5", "--norm", "l3"], "--norm"),
        (["s#2", "--prune", "0.5", "--device", "tpu"], "tpu"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    searched: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert nas("compress", *arguments, "--root", str(searched)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert not (searched / "s" / FOLDER).exists()


def test_a_model_without_weights_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = StudyStore.open(root, "s").record().trial(3).digest
    (root / "s" / "artefacts" / digest / "weights.safetensors").unlink()
    for arguments in (["s#3", "--prune", "0.5"], ["s#2", "--distil", "3"]):
        assert nas("compress", *arguments, "--root", str(root)) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "trial #3 has no trained weights in the study's folder" in said
    assert not (root / "s" / FOLDER).exists()


@pytest.mark.parametrize("stage", ["--prune", "--distil", "--quantize"])
def test_weights_of_another_architecture_are_refused(
    stage: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Variant, "reason_against", None)
    ours, other = (StudyStore.open(root, "s").record().trial(number).digest for number in (2, 3))
    artefacts = root / "s" / "artefacts"
    shutil.copy(artefacts / other / "weights.safetensors", artefacts / ours)
    wish = {"--prune": "0.5", "--distil": "2", "--quantize": "onnxruntime-int8"}[stage]
    trial = "s#3" if stage == "--distil" else "s#2"
    assert nas("compress", trial, stage, wish, "--root", str(root)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"has the weights of another architecture, {other} instead of {ours}; remove it" in said
    assert not (root / "s" / FOLDER).exists()


def test_a_training_that_diverges_ends_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Trainer, "_step", lambda *_: float("nan"))
    assert nas(*BOTH, "--root", str(root)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "#2 pruned to 50 % of its widths, pruned, seed 1: epoch 1, batch 1 of 2" in said
    assert "finished trainings are kept" in said


def test_other_images_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "studies.run.images.load_dataset",
        lambda *given, **named: replace(load_dataset(*given, **named), fingerprint="other"),
    )
    assert nas(*BOTH, "--root", str(root)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "its images have changed since the search" in said
    assert said.endswith("restore them")
    assert not (root / "s" / FOLDER).exists()


def test_objectives_of_ones_own_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path, monkeypatch)
    closeness, depth = parts("closeness"), parts("depth")
    at = ["--root", str(tmp_path)]
    assert nas(*RUN, "--objectives", f"{closeness},{depth}", "--trials", "1", *at) == 0
    command = ["compress", "s#2", "--prune", "0.5", "--epochs", "1", "--threads", "1"]
    assert nas(*command, "--seeds", "1", *at) == 0
    (stage,) = stages(tmp_path)
    assert all(0 < one.validation[closeness] < 1 for one in stage.trainings)
    assert all(0 < one.test[closeness] < 1 for one in stage.trainings)
    assert stage.costs.values[depth] > 10
