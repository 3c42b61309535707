"""Studies of grey images: one channel in spaces, references, training and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.artefacts import read_pixels
from nas.datasets import DataConfig, load_dataset
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from studies.config.loading import load_config
from studies.config.study import StudyConfig
from studies.launch import run_study
from studies.report.report import write_report


def space_of(tmp_path: Path, channels: object) -> SearchSpace:
    described = SearchSpace.load("tiny").to_dict()
    described["fixed"] = {**described["fixed"], "image_channels": channels}
    return SearchSpace(described)


def test_references_get_the_channels_of_the_space(tmp_path: Path) -> None:
    space = space_of(tmp_path, 1)
    fitted = space.fitted(ORIGINAL)
    assert (fitted.image_channels, fitted.image_size) == (1, 32)
    assert SearchSpace.load("tiny").fitted(ORIGINAL) == ORIGINAL.resized(32)
    assert ORIGINAL.resized(32, 1).resized(64).image_channels == 1


def test_other_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image_channels must be fixed to 3 .* or 1"):
        _ = space_of(tmp_path, 2).image_channels


def test_grey_faces_are_the_luma_of_coloured_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    colour = load_dataset(DataConfig(count=12), 16)
    grey = load_dataset(DataConfig(count=12), 16, channels=1)
    luma = np.array([0.299, 0.587, 0.114]) @ colour.images.astype(float).transpose(0, 2, 1, 3)
    assert grey.images.shape == (12, 1, 16, 16)
    assert np.abs(grey.images[:, 0] - luma).max() <= 0.5
    assert grey.fingerprint != colour.fingerprint


def study(tmp_path: Path, **changes: Any) -> StudyConfig:
    path = tmp_path / "grey.yaml"
    path.write_text(json.dumps(space_of(tmp_path, 1).to_dict()))
    settings = {
        "space": str(path),
        "name": "grey",
        "data.count": 24,
        "training.epochs": 1,
        "search.trials": 1,
        "objectives": ["reconstruction_loss", "params"],
        "confirmation": None,
        "device": "cpu",
        "workers": 1,
        "threads": 1,
    }
    return load_config("quickstart", {**settings, **changes})


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_references")
def test_a_study_of_grey_images(tmp_path: Path) -> None:
    record, _ = run_study(study(tmp_path), tmp_path / "studies")
    assert {trial.architecture.image_channels for trial in record.trials} == {1}
    assert [trial.state for trial in record.trials] == ["complete"] * 3
    pixels = read_pixels(record.reconstructions(record.trials[0]))
    assert pixels is not None
    assert pixels.shape[1:] == (1, 32, 32)
    assert "24 images" in write_report(record).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_references")
def test_latencies_are_measured_on_grey_images(tmp_path: Path) -> None:
    quick = {"min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2}
    timed = study(tmp_path, objectives=["params", "latency_ms"], latency=quick)
    record, _ = run_study(timed, tmp_path / "studies")
    for trial in record.complete:
        path = record.folder / "artefacts" / trial.digest / "latency.json"
        subjects = json.loads(path.read_text())["subjects"].values()
        assert {tuple(one["input_shapes"][0]) for one in subjects} == {(1, 1, 32, 32)}
    assert record.measured_together


def test_a_latency_of_grey_images_is_not_predicted(tmp_path: Path) -> None:
    asked = study(tmp_path, objectives=["params", "predicted_latency_ms"])
    with pytest.raises(UserError, match="is not predicted for grey images; use latency_ms"):
        run_study(asked, tmp_path / "studies")
