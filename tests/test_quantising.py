"""The stages of `nas compress`: a lower precision, and a pruned model on a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas.checkpoint import load_vae, save_weights
from nas.compress.narrowing import narrowed
from nas.deploy.passes import Reconstruction
from nas.deploy.variants import Built, Variant
from nas.protocol import evaluate
from nas.setups import SetUp
from nas.vae import build_vae
from profiling.intervals import Interval
from profiling.latency import Ratio
from search_spaces.errors import UserError
from studies.compress import pruning
from studies.compress.quantising import TIMED, InRuntime, quantise_stage
from studies.compress.training import Setting
from studies.config.study import StudyConfig
from studies.deploy.choice import Bounds
from studies.deploy.examination import Builders, build
from studies.record.compressed import KINDS, LOWERED, Costs, Lowered, Stage, read_stages
from studies.record.compressed_words import stage_words
from studies.record.records import StudyRecord
from tests.fakes.dataset import noise
from tests.fakes.stages import stage, training
from tests.fakes.study import fake_study
from tests.helpers.small_networks import described
from tests.helpers.variants import Here, built, no_bar

SMALL = described(16)
IMAGES = noise(40, 16)
QUICK = {"min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2,
         "priming_ms": 0, "min_sample_ms": 0}  # fmt: skip
INT8 = Variant("onnxruntime", "int8")


@pytest.fixture
def study(tmp_path: Path) -> StudyRecord:
    return fake_study(tmp_path / "faces-64", found=3)


@pytest.fixture
def setting(study: StudyRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    given = {"name": "s", "space": "tiny", "latency": QUICK, "data": {"count": 40}}
    weights = tmp_path / "weights.safetensors"
    save_weights(build_vae(SMALL, seed=0), weights)
    return Setting(
        study=study,
        trial=replace(study.trials[2], architecture=SMALL, digest=SMALL.digest),
        weights=weights,
        config=StudyConfig.model_validate(given),
        dataset=IMAGES,
        device=torch.device("cpu"),
        thread_count=1,
        epochs=1,
        seeds=(1,),
        anchors_ms={},
        say=lambda line: None,
        progress_bar=no_bar,
    )


@pytest.mark.slow
def test_a_model_in_int8_is_judged_and_kept_beside_float32(setting: Setting) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    models, study = {7: setting.weights}, setting.study
    folder = quantise_stage(setting, INT8, Bounds(int8=1.0), models, None, Here)
    ((found,), damaged) = read_stages(study.folder)
    assert damaged == []
    assert found == folder.stage
    assert found.title == "#2, in onnxruntime int8"
    assert [(one.role, one.seed, one.epochs) for one in found.trainings] == [
        ("source", 7, 0), ("float32", 7, 0), (LOWERED, 7, 0)
    ]  # fmt: skip
    source, float32, lowered = found.trainings
    # The same images and the same samples of the latent: float32 in the runtime is the same model.
    config = setting.training(7)
    expected = evaluate(load_vae(setting.weights), IMAGES, IMAGES.validation, config)
    assert source.validation["total_loss"] == pytest.approx(expected.total, rel=1e-6)
    for values, same in ((float32.validation, source.validation), (float32.test, source.test)):
        assert values == pytest.approx(same, rel=1e-3, abs=1e-4)
    assert lowered.validation != float32.validation
    assert lowered.lowered is not None
    assert lowered.lowered.images == len(IMAGES.validation)
    assert lowered.lowered.file_bytes > 0
    assert source.lowered is None
    for role, over in (("source", {}), ("float32", {}), (LOWERED, {TIMED})):
        costs = found.costs_of(role)
        low, high = costs.intervals[TIMED]
        assert low <= costs.values[TIMED] <= high
        assert costs.values["params"] == found.source.values["params"]
        assert costs.over_float32.keys() == set(over)
    assert {path.name for path in folder.path.iterdir()} == {
        "record.json", f"{LOWERED}-7.onnx", f"{LOWERED}-7.safetensors"
    }  # fmt: skip
    kept = load_vae(folder.publish("s") / "weights.safetensors").state_dict()
    assert all(
        torch.equal(kept[n], one) for n, one in load_vae(setting.weights).state_dict().items()
    )
    again = quantise_stage(setting, INT8, Bounds(int8=1.0), models, None, Never)
    assert again.stage == found


class Never:
    """In the place of a process that must not start."""

    def __init__(self, *given: Any, tuned: bool) -> None:
        raise AssertionError("it is recorded already")


def test_a_runtime_that_cannot_run_the_model_is_refused(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Variant, "reason_against", "needs x: pip install x")
    with pytest.raises(UserError, match=r"^#2, in onnxruntime int8: needs x: pip install x$"):
        quantise_stage(setting, INT8, Bounds(), {7: setting.weights}, None, Never)
    assert read_stages(setting.study.folder) == ([], [])


# What it says


def judged(cost: float, **changes: Any) -> Lowered:
    known = {"interval": (cost / 2, 2 * cost), "worst": 3 * cost, "images": 6, "file_bytes": 5000}
    return Lowered.model_validate({"cost": cost, **known, **changes})


def made(
    costs: list[float], over: tuple[float, float, float] = (0.8, 0.7, 0.9), **changes: Any
) -> Stage:
    """Return a stage with a model for each cost."""
    roles = ("source", "float32", LOWERED)
    trainings = tuple(
        training(role, seed, 0.5, epochs=0, trained=0, duration_s=0.0,
                 lowered=None if role == "source" else
                 judged(cost if role == LOWERED else 1e-7, **changes))
        for role in roles
        for seed, cost in enumerate(costs)
    )  # fmt: skip
    values = {"params": 1e6, "macs": 1e7, TIMED: 2.0}
    found = Costs(
        values=values,
        intervals={TIMED: (1.9, 2.1)},
        over_source={TIMED: (0.4, 0.3, 0.5)},
        over_float32={TIMED: over},
    )
    others = {"float32": Costs(values={**values, TIMED: 2.5})}
    settings = {"bound": 0.01}
    return stage({}, "quantise", settings, costs=found, others=others,
                 source=Costs(values={**values, TIMED: 5.0}), trainings=trainings)  # fmt: skip


def sentences(study: StudyRecord, one: Stage) -> list[tuple[str, bool | None]]:
    return [(verdict.text, verdict.pays) for verdict in stage_words(study, one).verdicts]


def test_what_it_costs_and_gains_is_said(study: StudyRecord) -> None:
    assert sentences(study, made([0.002, 0.004])) == [
        ("It costs +0.30 % of the reconstruction loss (+0.20 % to +0.40 %, over the models), "
         "within the bound of 1.0 %; the image that loses most, +1.20 %.", None),
        ("It pays in time: it takes 0.80x [0.70, 0.90] of the time of float32 in the same "
         "runtime, and 0.40x of that of eager PyTorch.", True),
    ]  # fmt: skip
    (costs, _), gains = sentences(study, made([0.02], (1.5, 1.4, 1.6)))
    assert costs.startswith("It costs +2.00 % of the reconstruction loss (+1.00 % to +4.00 %, 95 %")
    assert "more than the bound of 1.0 %" in costs
    assert gains[0].startswith("It does not pay in time: it takes 1.50x [1.40, 1.60]")
    assert gains[1] is False
    same = sentences(study, made([0.002], (1.0, 0.9, 1.1)))[1]
    assert same[0].startswith("It does not make it measurably faster: it takes 1.00x")


def test_layers_in_floating_point_are_named(study: StudyRecord) -> None:
    said = [text for text, _ in sentences(study, made([0.002], kept=("a", "b"), unserved=("c",)))]
    assert said[2:] == [
        "Sensitive, so in floating point (seed 0): a and b.",
        "The runtime computes these layers in floating point: c.",
    ]


def test_the_table_has_costs_of_every_role(study: StudyRecord) -> None:
    words = stage_words(study, made([0.002, 0.004]))
    assert words.heads == (
        "Models", "Reconstruction loss, validation", "Reconstruction loss, test", "Parameters",
        "MACs", "deployed latency", "Cost of the loss", "Files",
    )  # fmt: skip
    assert [row.name for row in words.rows] == list(KINDS["quantise"].roles.values())
    cells = [[cell.text for cell in row.cells[5:]] for row in words.rows]
    assert cells == [["5.00 ms", "-", "-"], ["2.50 ms", "+0.00 %", "5.00 kB"],
                     ["2.00 ms", "+0.30 %", "5.00 kB"]]  # fmt: skip
    assert words.rows[2].cells[6].interval == "+0.20 % to +0.40 %"
    assert [row.is_result for row in words.rows] == [False, False, True]


def test_sensitive_layers_stay_in_floating_point_above_the_bound() -> None:
    calls: list[tuple[str, ...]] = []

    def of(method: str, variant: Variant, keep: tuple[str, ...] = ()) -> Built:
        calls.append(keep)
        return replace(built("openvino int8", 0.03 - 0.01 * len(keep)), keep=keep)

    class Answers:
        def __init__(self, *given: Any, tuned: bool) -> None:
            pass

        def call(self, method: str, *args: Any, **callbacks: Callable[..., None]) -> Any:
            if method != "sensitive_layers":
                return of(method, *args)
            callbacks["progress"](1, 5)
            return ("a", "b", "c", "d", "e")

    source: Any = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Variant, "reason_against", None)
        builders, told = Builders(source, Path(), Answers), list[tuple[int, int]]()
        variant = Variant("openvino", "int8")
        found = build(builders, variant, Bounds(0.01), lambda *at: told.append(at))
    assert told == [(1, 5), (1, 1), (1, 1)]
    assert calls == [(), ("a",), ("a", "b")]
    assert found.keep == ("a", "b")


def test_the_pass_in_a_runtime_is_that_of_its_parts() -> None:
    vae = build_vae(SMALL, seed=0).eval()

    class Runs:
        @staticmethod
        def call(method: str, images: Any, eps: Any) -> list[Any]:
            assert method == "reconstruct"
            with torch.inference_mode():
                found = vae(torch.from_numpy(images), torch.from_numpy(eps))
            return [one.numpy() for one in found]

    builders: Any = Runs()
    images, eps = torch.rand(2, 3, 16, 16), torch.zeros(2, SMALL.latent_size)
    with torch.inference_mode():
        found = InRuntime(SMALL, builders).eval()(images, eps)
        expected = Reconstruction(vae)(images)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


# A target


TIMES_MS = {"original": 2.0, "source": 4.0, "result": 1.0}


class Taken:
    """Latencies of `TIMES_MS`."""

    contended = False

    def counted(self, name: str) -> Any:
        return SimpleNamespace(median_ms=TIMES_MS[name])

    def ratio(self, name: str, base: str = "original") -> Ratio:
        found = TIMES_MS[name] / TIMES_MS[base]
        return Ratio(found, Interval(0.9 * found, 1.1 * found))


def test_a_pruned_model_is_timed_on_the_target_of_each_set_up(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = SetUp.model_validate({**QUICK, "target": "pi", "part": "decoder"})
    config = setting.config.model_copy(update={"setups": {"board": board}})
    setting = replace(setting, config=config, anchors_ms={"": 20.0, "board": 200.0})
    there, places = object(), list[tuple[str, object]]()

    def measured(
        models: Any, base: str, setup: SetUp, where: object, images: Any, weights: Any, bar: Any
    ) -> Taken:
        places.append((setup.differing, where))
        assert models.keys() == {"original", "source", "result"}
        assert all(load_vae(path).architecture == models[n] for n, path in weights.items())
        return Taken()

    asked: list[str] = []
    monkeypatch.setattr(pruning, "address_of", asked.append)
    monkeypatch.setattr(pruning, "reach", lambda address: there)
    monkeypatch.setattr(pruning, "measure_together", measured)
    folder = pruning.prune_stage(setting, narrowed(SMALL, 0.5), "l1", "half")
    assert asked == ["pi"]
    assert places == [("", setting.device), ("onnxruntime, decoder, on pi", there)]
    stage = folder.stage
    assert {name: stage.costs.values[name] for name in stage.costs.intervals} == {
        "latency_ms": 10.0, "latency_ms:board": 100.0
    }  # fmt: skip
    assert stage.source.values["latency_ms:board"] == 400.0
    assert stage.costs.over_source["latency_ms:board"] == pytest.approx((0.25, 0.225, 0.275))
