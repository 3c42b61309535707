"""Predictions for other set-ups than eager PyTorch: from latencies of whole models."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nas.operation import Operation
from nas.predict import timed
from nas.predict.accuracy import check
from nas.predict.calibration import Calibration, Measurement, Role, Setting, drawn, extend
from nas.predict.design import informative
from nas.predict.linear_times import LinearTimes
from nas.predict.operations import operations
from nas.predict.predictor import LatencyPredictor
from nas.setups import EngineRefused, SetUp
from profiling.environment import fingerprint
from profiling.latency import Latency, TimedModel
from profiling.paired import TWIN, InterleavedLatencies, PairedLatency
from profiling.target.answers import Facts
from profiling.target.client import KnownTarget
from profiling.timing import Sample
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.run.evaluators import load_predictor
from tests.helpers.command import nas
from tests.helpers.made_up_machine import fake
from tests.helpers.targets import HERE

SIZE = 64
SPACE = SearchSpace.load(f"wide@{SIZE}")
ENGINE = Setting(image_size=SIZE, backend="bn_folded", part="decoder")
CPU = torch.device("cpu")
FACTS = Facts.model_validate({
    "machine": "m", "boot": "b", "processor": "Board", "cores": 4, "memory_kib": 1e6,
    "system": "Linux 6", "python": "3.11", "executable": "python3", "managed": False,
    "numpy": "2.0", "onnxruntime": "1.20", "missing": {}, "temperature_c": 40.0,
    "governor": "performance", "clock_mhz": 1500.0, "max_clock_mhz": 2400.0,
})  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NAS_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def members(count: int, seed: int = 1) -> list[Architecture]:
    return list(itertools.islice(drawn(SPACE, seed=seed), count))


def law_ms(operation: Operation) -> float:
    """A runtime in which activations are dear and BatchNorms are free."""
    kinds = {"batch_norm": 0.0, "activation": 8.0, "depthwise": 3.0}
    factor = kinds.get(operation.kind, 1.0)
    return factor * (0.005 + operation.macs * 4e-8 + operation.bytes_moved() * 1e-7)


def total_ms(architecture: Architecture, part: Any = "full") -> float:
    return sum(law_ms(one) for one in operations(architecture, part))


def in_runtime(architecture: Architecture, role: Role) -> Measurement:
    """What that runtime would measure for the decoder: nothing about single operations."""
    unit = total_ms(ORIGINAL.resized(SIZE), "decoder")
    ratio = total_ms(architecture, "decoder") / unit
    return Measurement(architecture, role, ((8.0 * ratio, 8.0), (9.0 * ratio, 9.0)))


# The model of the times


@pytest.mark.slow
def test_a_law_is_recovered_from_whole_models() -> None:
    known, others = members(120), members(30, seed=2)
    times = np.array([total_ms(one) for one in known])
    fitted = LinearTimes.fit([operations(one) for one in known], times, batch=1)
    predicted = [fitted(operations(one)).sum() for one in others]
    expected = [total_ms(one) for one in others]
    np.testing.assert_allclose(predicted, expected, rtol=0.05)
    assert all((found >= 0).all() for found in fitted.coefficients.values())


def test_few_noisy_models_are_fitted_close_to_all_kinds_together() -> None:
    noise = np.random.default_rng(0).lognormal(0.0, 0.15, 40)
    known, others = members(40), members(30, seed=2)
    models = [operations(one) for one in known]
    fitted = LinearTimes.fit(models, np.array([total_ms(one) for one in known]) * noise, batch=1)
    errors = [fitted(operations(one)).sum() / total_ms(one) - 1 for one in others]
    assert float(np.median(np.abs(errors))) < 0.15


@pytest.mark.slow
def test_informative_models_teach_more_than_random_ones() -> None:
    others = members(100, seed=2)
    expected = np.array([total_ms(one) for one in others])

    def large_error(known: Sequence[Architecture]) -> float:
        errors = []
        for seed in range(3):
            noise = np.random.default_rng(seed).lognormal(0.0, 0.04, len(known))
            times = np.array([total_ms(one) for one in known]) * noise
            fitted = LinearTimes.fit([operations(one) for one in known], times, batch=1)
            predicted = [fitted(operations(one)).sum() for one in others]
            errors.append(np.abs(predicted / expected - 1))
        return float(np.percentile(errors, 90))

    chosen = list(itertools.islice(informative(SPACE, [], "full", 1), 60))
    assert len({one.digest for one in chosen}) == 60
    assert large_error(chosen) < 0.85 * large_error(members(60))


def test_the_choice_of_informative_models_goes_on_after_an_interruption() -> None:
    whole = list(itertools.islice(informative(SPACE, [], "decoder", 1), 6))
    rest = list(itertools.islice(informative(SPACE, whole[:3], "decoder", 1), 4))
    assert rest[0].digest == whole[3].digest


def test_a_kind_that_no_model_had_gets_the_common_coefficients() -> None:
    known = members(40)
    models: Sequence[Sequence[Operation]] = [operations(one) for one in known]
    fitted = LinearTimes.fit(models, np.array([total_ms(one) for one in known]), batch=1)
    new = Operation("activation", 8, 8, 16, 16, function="tanh")
    assert fitted([new])[0] > 0
    assert fitted([]).shape == (0,)


def test_the_parts_of_a_model_have_its_operations() -> None:
    for architecture in (ORIGINAL, MODIFIED):
        full = operations(architecture)
        parts = [*operations(architecture, "encoder"), *operations(architecture, "decoder")]
        assert [one for one in full if one.kind != "reparameterise"] == parts


# Its calibration


def test_a_setting_names_its_set_up() -> None:
    setup = SetUp(backend="onnxruntime", part="encoder", threads=2, batch=4)
    setting = Setting.of(setup, "cuda", 64)
    assert setting.words == "cuda, 2 threads, batch 4, 64 pixels, onnxruntime, encoder"
    assert setting.remedy == (
        "nas profile calibrate --space wide@64 --device cuda --threads 2 --batch 4 --backend "
        "onnxruntime --part encoder"
    )
    there = Setting.of(SetUp(target="pi"), "cuda", 64)
    assert (there.device, there.target, there.by_operation) == ("cpu", "pi", False)
    assert Setting.of(SetUp(), "cpu", 64) == Setting(image_size=64)
    assert Setting().by_operation


def test_calibrations_of_set_ups_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.setups.version", lambda name: "1.2")
    engine = Setting(image_size=SIZE, backend="onnxruntime")
    extend(Calibration.here(engine), SPACE, 1, 1, measure=in_runtime)
    assert Calibration.here(engine).environment.runtime == "onnxruntime 1.2"
    assert len(Calibration.here(engine).measurements) == 2
    plain = Setting(image_size=SIZE)
    assert Calibration.here(plain).measurements == []
    assert Calibration.here(plain).environment == fingerprint("cpu").model_copy(
        update={"threads": 1}
    )
    assert Calibration.elsewhere(plain) is None
    # Another version of the runtime is another environment.
    monkeypatch.setattr("nas.setups.version", lambda name: "1.3")
    assert Calibration.here(engine).measurements == []
    with pytest.raises(UserError, match=r"runtime: 'onnxruntime 1.2' against 'onnxruntime 1.3'"):
        LatencyPredictor.load(engine)


def test_a_target_s_calibration_belongs_to_its_environment() -> None:
    setting, known = Setting.of(SetUp(target="pi"), "cpu", SIZE), KnownTarget(HERE, FACTS)
    extend(Calibration.here(setting, known), SPACE, 30, 20, measure=in_runtime)
    assert LatencyPredictor.load(setting, known) is not None
    newer = KnownTarget(HERE, FACTS.model_copy(update={"onnxruntime": "1.21"}))
    with pytest.raises(UserError, match=r"onnxruntime 1.20' against 'onnxruntime 1.21'.*--target"):
        LatencyPredictor.load(setting, newer)


def test_what_cannot_be_run_is_left_out() -> None:
    refused: list[str] = []

    def measure(architecture: Architecture, role: Role) -> Measurement | None:
        if len(refused) < 2:
            refused.append(architecture.digest)
            return None
        return in_runtime(architecture, role)

    calibration = Calibration.here(ENGINE)
    extend(calibration, SPACE, 2, 1, measure=measure)
    known = {one.architecture.digest for one in calibration.measurements}
    assert len(known) == 3
    assert not known & set(refused)


def test_a_predictor_of_whole_models_has_shares_and_margins() -> None:
    calibration = Calibration.here(ENGINE)
    extend(calibration, SPACE, 60, 30, measure=in_runtime)
    predictor = LatencyPredictor(calibration)
    ours, macs, launches = check(predictor)
    assert ours.within_10 >= 0.9
    assert ours.median_error < min(macs.median_error, launches.median_error)
    assert predictor.margin < 1.2
    assert sum(predictor.contributions(MODIFIED.resized(SIZE)).values()) == pytest.approx(1)


# Measuring


def latency(wall_ms: float, cpu_ms: float, threads: int = 1) -> Latency:
    subject = TimedModel("x", ((1, 3, 64, 64),), "float32", threads, 1)
    return Latency(subject, fingerprint(), (Sample(wall_ms, cpu_ms),) * 12)


@pytest.mark.parametrize(("threads", "kept"), [(1, 12), (2, 0)])
def test_whole_models_are_timed_beside_original(
    threads: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def meter(setup: SetUp, where: Any) -> Any:
        asked.append((setup, where))

        def measure(architecture: Architecture) -> tuple[PairedLatency, float]:
            if architecture.image_size == 32:
                raise EngineRefused("no such operator")
            names = {"candidate": 6.0, "reference": 3.0, TWIN: 3.0}
            taken = {name: latency(ms, 0.99 * ms, threads) for name, ms in names.items()}
            return PairedLatency(InterleavedLatencies(taken, "reference", 3.0, 12)), 0.0

        return SimpleNamespace(measure=measure)

    monkeypatch.setattr(timed, "Meter", meter)
    timer = timed.ModelTimer(Setting(threads=threads, backend="openvino", part="encoder"), CPU)
    found = timer(MODIFIED, "fitted")
    assert found is not None
    assert (found.ratio, found.operations, found.contended) == (2.0, (), False)
    assert found.samples_ms == ((6.0, 3.0),) * 12
    assert len(found.cpu_ms) == kept
    ((setup, where),) = asked
    assert (setup.backend, setup.part, setup.threads, where) == (
        "openvino",
        "encoder",
        threads,
        CPU,
    )
    assert timer(MODIFIED.resized(32), "fitted") is None


@pytest.mark.slow
def test_a_whole_model_is_timed_in_another_backend() -> None:
    setting = Setting(image_size=16, backend="bn_folded", part="decoder")
    found = timed.ModelTimer(setting, CPU)(MODIFIED.resized(16), "held_out")
    assert found is not None
    assert found.ratio > 0
    assert len(found.cpu_ms) == len(found.samples_ms)


# In a study, and as a command


@pytest.mark.slow
def test_a_study_uses_the_calibration_of_its_own_set_up() -> None:
    extend(Calibration.here(Setting(image_size=SIZE)), SPACE, 30, 20, measure=fake)
    extend(Calibration.here(ENGINE), SPACE, 30, 20, measure=in_runtime)
    values = {"name": "s", "space": "wide@64", "objectives": ["params", "predicted_latency_ms"]}
    for latency, by_operation in (({}, True), ({"backend": "bn_folded", "part": "decoder"}, False)):
        config = StudyConfig.model_validate({**values, "latency": latency})
        found = load_predictor(config, CPU, SIZE)
        assert found is not None
        assert found.setting.by_operation == by_operation
    config = StudyConfig.model_validate({**values, "latency": {"part": "decoder"}})
    with pytest.raises(UserError, match=r"64 pixels, decoder; make one with: .* --part decoder$"):
        load_predictor(config, CPU, SIZE)
    measured = StudyConfig.model_validate(
        {**values, "objectives": ["params", "latency_ms"], "latency": {"part": "decoder"}}
    )
    assert load_predictor(measured, CPU, SIZE) is None


@pytest.mark.slow
def test_calibrate_then_predict_in_a_set_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(timed, "ModelTimer", lambda setting, where: in_runtime)
    setup = ("--backend", "bn_folded", "--part", "decoder", "--device", "cpu")
    space = ("--space", "wide@64", "--architectures", "60")
    assert nas("profile", "calibrate", *space, *setup) == 0
    assert "batch 1, 64 pixels, bn_folded, decoder: fitted to 40" in capsys.readouterr().out
    assert nas("profile", "predict", "modified@64", *setup, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    expected = in_runtime(MODIFIED.resized(64), "held_out").ratio
    assert row["ratio_to_original"] == pytest.approx(expected, rel=0.1)
    assert nas("profile", "predict", "modified@64", "--part", "decoder", "--device", "cpu") == 2
    assert "no latency predictor for cpu, 1 thread, batch 1, 64 pixels, decoder" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("command", ["calibrate", "predict"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backend", "onx"), "--backend onx: backend: 'onx' is not one of eager"),
        (("--target", "pi"), "--target: target 'pi' is not known"),
        (("--precision", "int3"), "--precision int3: precision: 'int3' is not one of float32"),
    ],
)
def test_faulty_options_are_refused(
    command: str, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("original@64",) if command == "predict" else ("--space", "wide@64")
    assert nas("profile", command, *named, *options) == 2
    assert words in capsys.readouterr().err
