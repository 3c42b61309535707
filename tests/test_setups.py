"""What is timed: backend, precision and part of a set-up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.evaluate import Evaluator
from nas.latency import Meter, measure_together
from nas.objectives import OBJECTIVES, latency_in, set_up_of
from nas.setups import (
    EngineRefused,
    Engines,
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
from search_spaces.references import ORIGINAL
from studies.config.study import StudyConfig
from studies.launch import run_study
from studies.record.comparison import compare
from studies.record.earlier import complete_latency
from studies.record.records import StudyRecord
from studies.store.reading import anchors_ms
from studies.store.store import StudyStore

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
        ({"precision": "int4"}, "'float32', 'bfloat16' or 'int8'"),
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


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_the_version_of_what_runs_a_model_is_known(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.setups.version", lambda name: f"1.2 of {name}")
    for name in (package, f"{package}_rewritten"):
        assert SetUp(backend=name).runtime == f"{package} 1.2 of {package}"
    assert SetUp(backend="rewritten").runtime is None


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
    prepare = Engines(quick(backend="compile"), CPU, lane, keep=("reference",))
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
    prepare = Engines(quick(backend="onnxruntime"), CPU, Lane("cpu"))
    with pytest.raises(EngineRefused, match="no such operator") as refused:
        prepare("candidate", build_vae(SMALL), torch.rand(1, 3, 16, 16))
    setup = quick(backend="onnxruntime")
    evaluator = Evaluator(None, TrainingConfig(), setup, CPU, ["latency_ms"], tmp_path)

    def measure(*_: object) -> None:
        raise refused.value

    monkeypatch.setattr(evaluator.meters[""], "measure", measure)
    with pytest.raises(CandidateFailed, match=r"while its latency was measured: .*no such operat"):
        list(evaluator(SMALL))


def test_settings_of_earlier_versions_are_those_of_the_plain_set_up() -> None:
    before = {"batch": 1, "precision": 0.01}
    assert complete_latency(before) == {
        "batch": 1, "half_width": 0.01, "backend": "eager", "precision": "float32", "part": "full",
        "target": None,
    }  # fmt: skip
    now = SetUp(backend="openvino", part="decoder").model_dump()
    assert complete_latency(now) == now


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "part"),
    [("channels_last", "encoder"), ("channels_last", "decoder"), ("onnxruntime", "full")],
)
def test_every_part_is_measured_in_another_runtime(backend: str, part: str) -> None:
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    setup = quick(backend=backend, part=part)
    pair, _ = Meter(setup, CPU).measure(SMALL)
    subject = pair.candidate.subject
    assert (subject.backend, subject.part, subject.precision) == (backend, part, "float32")
    assert pair.ratio.median > 0
    together = measure_together({"original": SMALL}, "original", setup, CPU)
    assert {one.subject.backend for one in together.taken.values()} == {backend}


def test_names_of_latencies_lead_to_their_set_up() -> None:
    assert [set_up_of(name) for name in ("latency_ms", "latency_ms:pi", "params")] == [
        "",
        "pi",
        None,
    ]
    assert [latency_in(name) for name in ("", "pi")] == ["latency_ms", "latency_ms:pi"]
    assert "latency_ms:pi" in OBJECTIVES
    assert "params:pi" not in OBJECTIVES
    assert "latency_ms:" not in OBJECTIVES
    assert OBJECTIVES["latency_ms:pi"].unit == "ms"
    with pytest.raises(KeyError):
        OBJECTIVES["params:pi"]
    assert not any(":" in name for name in OBJECTIVES)


def config(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "s", "space": "tiny", **changes})


def test_a_further_set_up_differs_from_the_first_in_what_it_names() -> None:
    asked = config(
        latency={"max_s": 3.0, "threads": 2},
        setups={"board": {"backend": "onnxruntime", "threads": 1}},
        objectives=["params", "latency_ms:board"],
        limits={"latency_ms:board": 5.0},
    )
    board = asked.all_setups["board"]
    assert (board.max_s, board.threads, board.backend) == (3.0, 1, "onnxruntime")
    assert asked.measured
    assert StudyConfig.model_validate(asked.to_dict()) == asked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["params", "latency_ms:bord"]}, "did you mean 'board'"),
        ({"limits": {"latency_ms:pi": 1.0}}, "setups has no 'pi', but board"),
        ({"setups": {"a b": {}}}, "setups"),
        ({"setups": {"board": {"backend": "onnxruntim"}}}, "did you mean 'onnxruntime'"),
        ({"setups": ["board"]}, "setups"),
    ],
)
def test_set_ups_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**{"setups": {"board": {}}, **changes})


@pytest.fixture(scope="module")
def study(
    tmp_path_factory: pytest.TempPathFactory, narrow_references: None
) -> Iterator[StudyRecord]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        asked = config(
            objectives=["latency_ms", "latency_ms:last", "params"],
            latency=QUICK,
            setups={"last": {"backend": "channels_last"}, "back": {"part": "decoder"}},
            search={"trials": 2},
            workers=1,
        )
        record, gave_up = run_study(asked, tmp_path_factory.mktemp("studies"))
        assert gave_up is None
        yield record


@pytest.mark.slow
def test_a_study_measures_in_every_set_up(study: StudyRecord) -> None:
    names = {"latency_ms", "latency_ms:last", "latency_ms:back"}
    for trial in study.complete:
        assert names <= trial.objectives.keys()
        assert names == trial.intervals.keys()
        folder = study.folder / "artefacts" / trial.digest
        files = {path.name for path in folder.glob("latency*.json")}
        assert files == {"latency.json", "latency-last.json", "latency-back.json"}
        stored = json.loads((folder / "latency-back.json").read_text())
        assert {one["part"] for one in stored["subjects"].values()} == {"decoder"}
    assert [one.name for one in study.recorded] == ["macs", "latency_ms:back"]


@pytest.mark.slow
def test_the_front_is_measured_again_in_every_set_up(study: StudyRecord) -> None:
    for trial in study.front:
        for end in ("", ":last", ":back"):
            assert f"latency_ms_in_search{end}" in trial.metrics
            ratio = trial.metrics[f"latency_over_original{end}"]
            anchor = anchors_ms(study.environment)[end.removeprefix(":")]
            assert trial.objectives[f"latency_ms{end}"] == pytest.approx(anchor * ratio)


@pytest.mark.slow
def test_latencies_are_compared_within_their_set_up(study: StudyRecord) -> None:
    found, original = study.front[0], next(iter(study.references.values()))
    compared = compare(study, found, original)
    for end in ("", ":last"):
        ratio = found.metrics[f"latency_over_original{end}"]
        assert compared.factors[f"latency_ms{end}"] == pytest.approx(1 / ratio)


@pytest.mark.slow
def test_another_set_up_is_another_study(study: StudyRecord) -> None:
    stored = StudyStore(study.folder)
    asked = StudyConfig.model_validate(study.config)
    changed = asked.model_copy(update={"setups": {"last": asked.setups["last"]}})
    with pytest.raises(UserError, match=r"exists with other settings \(setups.back was"):
        run_study(changed, study.folder.parent)
    assert stored.record().trials == study.trials
