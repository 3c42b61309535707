"""What is timed: backend, precision and part of a set-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas.evaluate import Evaluator
from nas.latency import Meter, measure_together
from nas.setups import (
    EngineRefused,
    Preparation,
    SetUp,
    inputs_of,
    part_of,
    require_backend,
)
from nas.training import CandidateFailed, TrainingConfig
from nas.vae import build_vae
from profiling.errors import ProfilingError
from profiling.lane import Lane
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL
from studies.record.earlier import complete_latency

SMALL = ORIGINAL.resized(16)
CPU = torch.device("cpu")
QUICK = {"min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2}


@pytest.fixture(autouse=True)
def speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))


def quick(**changes: Any) -> SetUp:
    return SetUp.model_validate({**QUICK, **changes})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"backend": "onnxruntim"}, "did you mean 'onnxruntime'"),
        ({"precision": 0.02}, "latency.half_width"),
        ({"precision": "int4"}, "'float32' or 'bfloat16'"),
        ({"part": "head"}, "'full', 'encoder' or 'decoder'"),
    ],
)
def test_unknown_values_are_refused_with_the_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SetUp.model_validate(given)


def test_a_backend_that_is_missing_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("profiling.backends.missing", lambda *names: "needs it: pip install it")
    with pytest.raises(UserError, match=r"latency.backend: onnxruntime needs it: pip install it"):
        require_backend(SetUp(backend="onnxruntime"), CPU)
    require_backend(SetUp(), CPU)


def test_parts_run_on_the_inputs_that_they_have_in_the_whole_model() -> None:
    model, images = build_vae(SMALL, seed=0).eval(), torch.rand(3, 3, 16, 16)
    assert part_of(model, "full") is model
    assert inputs_of(model, images, SetUp()) is images
    assert inputs_of(model, images, SetUp(part="encoder")) is images
    latents: Any = inputs_of(model, images, SetUp(part="decoder"))
    with torch.inference_mode():
        assert torch.equal(latents, model.encode(images)[0])
        assert part_of(model, "encoder")(images)[0].shape == latents.shape
        assert part_of(model, "decoder")(latents).shape == images.shape
    noise: Any = inputs_of(model, images, SetUp(backend="onnxruntime"))
    assert [tuple(one.shape) for one in noise] == [(3, 3, 16, 16), (3, SMALL.latent_size)]


def test_engines_of_the_reference_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Ready:
        def __init__(self, name: str) -> None:
            made.append(name)
            self.run = lambda *args: args

    monkeypatch.setattr("nas.setups.prepare_backend", lambda name, *args, **keys: Ready(name))
    lane = Lane("cpu")
    prepare = Preparation(quick(backend="compile"), CPU, lane, keep=("reference",))
    model, images = build_vae(SMALL), torch.rand(2, 3, 16, 16)
    first = prepare("reference", model, images)
    assert prepare("reference", model, images) is first
    assert prepare("candidate", model, images) is not prepare("candidate", model, images)
    assert made == ["compile"] * 3
    assert prepare("reference", model, torch.rand(2, 3, 32, 32)) is not first


def test_a_backend_that_cannot_run_a_candidate_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ProfilingError("onnxruntime: cannot run this model: no such operator")

    monkeypatch.setattr("nas.setups.prepare_backend", refuse)
    prepare = Preparation(quick(backend="onnxruntime"), CPU, Lane("cpu"))
    with pytest.raises(EngineRefused, match="no such operator") as refused:
        prepare("candidate", build_vae(SMALL), torch.rand(1, 3, 16, 16))
    setup = quick(backend="onnxruntime")
    evaluator = Evaluator(None, TrainingConfig(), setup, CPU, ["latency_ms"], tmp_path)

    def measure(*_: object) -> None:
        raise refused.value

    monkeypatch.setattr(evaluator.meter, "measure", measure)
    with pytest.raises(CandidateFailed, match=r"while its latency was measured: .*no such operat"):
        list(evaluator(SMALL))


def test_settings_of_earlier_versions_are_those_of_the_plain_set_up() -> None:
    before = {"batch": 1, "precision": 0.01}
    assert complete_latency(before) == {
        "batch": 1, "half_width": 0.01, "backend": "eager", "precision": "float32", "part": "full",
    }  # fmt: skip
    now = SetUp(backend="openvino", part="decoder").model_dump()
    assert complete_latency(now) == now


@pytest.mark.slow
@pytest.mark.parametrize("part", ["full", "encoder", "decoder"])
@pytest.mark.parametrize("backend", ["channels_last", "onnxruntime"])
def test_every_part_is_measured_in_another_runtime(backend: str, part: str) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    setup = quick(backend=backend, part=part)
    pair, _ = Meter(setup, CPU).measure(MODIFIED.resized(16))
    subject = pair.candidate.subject
    assert (subject.backend, subject.part, subject.precision) == (backend, part, "float32")
    assert pair.ratio.median > 0
    anchors = {"original": SMALL, "modified": MODIFIED.resized(16)}
    together = measure_together(anchors, "original", setup, CPU)
    assert {one.subject.backend for one in together.taken.values()} == {backend}
