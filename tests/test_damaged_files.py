"""Files of a study that are truncated, garbled, of another kind, or no files at all."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.scale import Setting, grow
from nas.artefacts import read_pixels
from nas.checkpoint import load_vae, read_tensors, save_weights, write_tensors
from nas.datasets import DataConfig
from nas.protocol import TrainingConfig
from nas.training import Trainer
from nas.vae import build_vae
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from studies.bench.runs import PlannedSearch, run_all
from studies.confirm.results import Budget, Results
from studies.report.pictures import picture_rows
from studies.store.store import StudyStore, list_studies
from tests.fakes.dataset import noise
from tests.fakes.study import fake_study
from tests.helpers.command import nas

ARCHITECTURE = ORIGINAL.resized(32)


def header(text: str, data: bytes = b"") -> bytes:
    """Return a `.npy` file with this header."""
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data


def shaped(shape: str, data: bytes = b"") -> bytes:
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    return header(described, data)


def with_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{1: 2}], dtype=object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"PK\x03\x04" + bytes(99),
        with_objects(),
        header("(" * 400),
        header("(" * 60_000),
        shaped("(8, 3, 1000000, 1000000)"),
        shaped("(8, 3, -1, 32)", bytes(99)),
        shaped("(8, 3, 0, 32)"),
        shaped("(2, 3, 4)", bytes(24)),
        shaped("(2, 4, 3, 1)", bytes(24)),
        shaped("(2, 3, 2, 2)", bytes(23)),
        shaped("(2, 3, 2, 2)", bytes(25)),
    ],
)
def test_a_foreign_array_is_no_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert read_pixels(path) is None


def test_images_are_read_as_they_were_written(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    for one in (pixels, np.asfortranarray(pixels), pixels[:, :1]):
        np.save(tmp_path / "x.npy", one)
        read = read_pixels(tmp_path / "x.npy")
        assert read is not None
        assert np.array_equal(read, one)
    os.mkfifo(tmp_path / "fifo.npy")
    for name in ("fifo.npy", "missing.npy", "."):
        assert read_pixels(tmp_path / name) is None


Weights = dict[str, Tensor]
FIRST = "decoder.output.convolution.bias"


def without_first(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != FIRST}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_first, f"'{FIRST}' is missing"),
        (lambda weights: {**weights, "zz": torch.zeros(3)}, "'zz' is unknown"),
        (lambda weights: {**weights, FIRST: torch.zeros(4)}, r"\(4,\), expected .* \(3,\)"),
        (lambda weights: {**weights, FIRST: torch.zeros(3).double()}, "float64"),
        (lambda weights: {**weights, FIRST: torch.zeros(3, dtype=torch.bool)}, "bool"),
    ],
)
def test_weights_that_do_not_fit_their_architecture_are_refused(
    tmp_path: Path, change: Callable[[Weights], Weights], reason: str
) -> None:
    path = tmp_path / "weights.safetensors"
    model = build_vae(ARCHITECTURE, seed=0)
    described = {"architecture": json.dumps(ARCHITECTURE.to_dict())}
    write_tensors(path, change(dict(model.state_dict())), described)
    with pytest.raises(UserError, match=rf"does not fit its architecture \(.*{reason}") as refused:
        load_vae(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("described", ["{no", "[" * 100_000, "[]", "null"])
def test_weights_with_a_garbled_architecture_are_refused(tmp_path: Path, described: str) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {}, {"architecture": described})
    with pytest.raises(UserError, match=r"weights\.safetensors") as refused:
        load_vae(path)
    assert "\n" not in str(refused.value)


def test_a_pipe_in_place_of_weights_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.safetensors")
    with pytest.raises(UserError, match="not an ordinary file"):
        load_vae(tmp_path / "weights.safetensors")


def test_weights_of_every_dtype_of_the_model_come_back(tmp_path: Path) -> None:
    model = build_vae(ARCHITECTURE, seed=0)
    save_weights(model, tmp_path / "w")
    read: Architecture = load_vae(tmp_path / "w").architecture
    assert read == ARCHITECTURE


GARBLED = [b"", b"{", b"\xff\xfe", b"null", b"[]", b"[" * 100_000, b'{"regret": "x"}', b"nan"]


@pytest.mark.parametrize("content", GARBLED)
def test_a_damaged_result_of_a_comparison_is_searched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    planned = PlannedSearch("nb201", "random", 0, 5, 1)
    (found,) = run_all([planned], tmp_path)
    planned.file(tmp_path).write_bytes(content)
    (again,) = run_all([planned], tmp_path)
    assert {**again, "ask_ms": 0} == {**found, "ask_ms": 0}
    (line,) = capsys.readouterr().err.splitlines()
    assert "random-0.json: damaged; the search was run again" in line


@pytest.mark.parametrize(
    "change",
    [{"regret": []}, {"regret": [0.5]}, {"regret": None}, {"ask_ms": 1e999}, {"seed": "x"}],
)
def test_a_result_with_wrong_values_is_searched_again(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    planned = PlannedSearch("nb201", "random", 0, 5, 1)
    (found,) = run_all([planned], tmp_path)
    assert len(found["regret"]) > 1
    planned.file(tmp_path).write_text(json.dumps({**found, **change}))
    (again,) = run_all([planned], tmp_path)
    assert {**again, "ask_ms": 0} == {**found, "ask_ms": 0}


RUN = {
    "digest": "0" * 12,
    "seed": 0,
    "learning_rate": 0.001,
    "best_epoch": 1,
    "test": {"total": 1.0, "reconstruction": 0.9},
    "history": [{"validation_loss": 1.0, "duration_s": 1.0}],
}
DAMAGED_RUNS: list[dict[str, Any]] = [
    {"seed": None},
    {"best_epoch": 0},
    {"best_epoch": 2},
    {"test": {"total": 1.0}},
    {"test": {"total": 1e999, "reconstruction": 0.9}},
    {"history": []},
    {"history": [{"duration_s": 1.0}]},
    {"history": {}},
]


@pytest.mark.parametrize(
    "content",
    [*GARBLED, *(json.dumps({"runs": [{**RUN, **change}]}).encode() for change in DAMAGED_RUNS)],
)
def test_damaged_results_of_a_retraining_are_refused(tmp_path: Path, content: bytes) -> None:
    study = fake_study(tmp_path)
    path = study.folder / "retrained" / "results.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    budget = Budget(DataConfig(), TrainingConfig(), (0.001,))
    with pytest.raises(UserError, match=r"results\.json: damaged; remove it to begin again"):
        Results(study, budget, {})
    assert path.read_bytes() == content


def test_intact_results_of_a_retraining_are_read(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    path = study.folder / "retrained" / "results.json"
    path.parent.mkdir(parents=True)
    budget = Budget(DataConfig(), TrainingConfig(), (0.001,))
    path.write_text(json.dumps({**budget.to_dict(), "runs": [RUN]}))
    (run,) = Results(study, budget, {}).runs
    assert (run.validation_loss, run.learning_rate, run.test) == (1.0, 0.001, RUN["test"])


def test_a_file_in_place_of_the_artefacts_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "scale").mkdir()
    (tmp_path / "scale" / "artefacts").write_text("mine")
    with pytest.raises(UserError, match=r"artefacts: a file is in place of this folder; move it"):
        grow(Setting(tmp_path, None, trials=2, epochs=1))
    assert (tmp_path / "scale" / "artefacts").read_text() == "mine"
    assert [path.name for path in (tmp_path / "scale").iterdir()] == ["artefacts"]


def test_only_folders_with_an_ordinary_study_file_are_listed(tmp_path: Path) -> None:
    for name in ("fifo", "folder", "study"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "fifo" / "study.yaml")
    (tmp_path / "folder" / "study.yaml").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("storage: journal:journal.log\n")
    assert list_studies(tmp_path) == ["study"]
    for name in ("fifo", "folder"):
        with pytest.raises(UserError, match=f"no study '{name}'"):
            StudyStore.open(tmp_path, name)


def test_the_report_of_a_study_with_foreign_arrays_has_no_pictures(tmp_path: Path) -> None:
    study = fake_study(tmp_path, images=4)
    assert picture_rows(study)
    study.samples.write_bytes(shaped("(8, 3, 1000000, 1000000)"))
    assert picture_rows(study) == []


def trained(path: Path) -> tuple[Trainer, list[int]]:
    """Train a small model for two epochs from a checkpoint, if there is one."""
    config = TrainingConfig(epochs=2, batch_size=8)
    trainer = Trainer(ARCHITECTURE, noise(20, 32), config)
    return trainer, [result.epoch for result in trainer.epochs(path)]


@pytest.mark.parametrize("change", ["history", "model.", "best.", "schedule_free.", "type"])
@pytest.mark.slow
def test_a_checkpoint_with_foreign_content_starts_the_training_over(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "checkpoint"
    whole, _ = trained(path)
    tensors, metadata = read_tensors(path)
    part = change if change.endswith(".") else "model."
    name = next(one for one in tensors if one.startswith(part))
    if change == "history":
        metadata["history"] = "[1]"
    elif change == "type":
        tensors[name] = tensors[name].double()
    else:
        del tensors[name]
    write_tensors(path, tensors, metadata)
    with pytest.warns(RuntimeWarning, match=r"checkpoint: damaged .*; training starts over"):
        again, epochs = trained(path)
    assert epochs == [1, 2]
    best = again.best_model().state_dict()
    for key, tensor in whole.best_model().state_dict().items():
        assert torch.equal(tensor, best[key])


@pytest.mark.parametrize(
    "command",
    [
        "study export scale --out {}/journal.log",
        "study best scale --out {}",
        "study best scale --out {}/artefacts/x",
        "study effects scale --out {}/study.yaml",
        "export original@32 --onnx {}/study.yaml",
        "data preview --out {}/x.png",
        "bench search --out {}/artefacts",
        "profile model original@32 --out {}/artefacts/x",
    ],
)
def test_nothing_is_written_over_the_files_of_a_study(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scale"
    (folder / "artefacts").mkdir(parents=True)
    (folder / "study.yaml").write_text("storage: journal:journal.log\n")
    (tmp_path / "link").symlink_to(folder)
    for way in (folder, tmp_path / "link"):
        assert nas(*command.format(way).split()) == 2
        assert "is in the folder of study scale" in capsys.readouterr().err
    assert sorted(path.name for path in folder.rglob("*")) == ["artefacts", "study.yaml"]


def test_a_study_that_is_refused_before_it_began_leaves_no_folder(tmp_path: Path) -> None:
    store = StudyStore(tmp_path / "root" / "s")
    with pytest.raises(UserError, match="no images"), store.writing():
        raise UserError("no images")
    assert list(tmp_path.iterdir()) == []
    with store.writing():
        (tmp_path / "root" / "s" / "artefacts" / "samples.npy").touch()
    assert (tmp_path / "root" / "s" / "artefacts" / "samples.npy").exists()
