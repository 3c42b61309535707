"""Predicted latency in a study: as an objective, and to reject slow candidates unmeasured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from nas.evaluate import Evaluator
from nas.predict.predictor import LatencyPredictor
from nas.setups import SetUp
from nas.training import TrainingConfig
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from studies.config.loading import load_config
from studies.config.study import StudyConfig
from studies.launch import run_study


class Doubles:
    """Predicts that everything takes twice as long as `original`, give or take a quarter."""

    original_ms, margin = 10.0, 1.25

    def predict_ms(self, architectures: list[Any], original_ms: float) -> Any:
        return np.full(len(architectures), 2 * original_ms)


def findings(tmp_path: Path, anchor_ms: float | None) -> Any:
    evaluator = Evaluator(
        dataset=None,
        training=TrainingConfig(),
        latency=SetUp(),
        device=torch.device("cpu"),
        wanted=("params", "predicted_latency_ms"),
        artefacts=tmp_path,
        anchors_ms={"": anchor_ms} if anchor_ms else {},
        predictor=cast("LatencyPredictor", Doubles()),
    )
    *_, last = evaluator(ORIGINAL.resized(32))
    return last


def test_a_prediction_has_the_study_s_scale_and_a_lower_bound(
    tmp_path: Path,
) -> None:
    found = findings(tmp_path, anchor_ms=7.0)
    assert found.objectives["predicted_latency_ms"] == 14.0
    assert found.metrics["latency_ms_at_least"] == pytest.approx(14.0 / 1.25)
    assert "latency_ms" not in found.objectives
    assert findings(tmp_path, anchor_ms=None).objectives["predicted_latency_ms"] == 20.0


def test_without_a_calibration_the_remedy_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    asked = load_config("quickstart", {"objectives": ["params", "predicted_latency_ms"]})
    with pytest.raises(UserError, match=r"no latency predictor for cpu.*64 pixels.*calibrate"):
        run_study(asked, tmp_path)


def test_it_stands_in_for_latency_not_beside_it() -> None:
    with pytest.raises(ValueError, match="predicted_latency_ms replaces latency_ms"):
        StudyConfig(name="s", space="tiny", objectives=("latency_ms", "predicted_latency_ms"))
