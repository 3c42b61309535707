"""Architectures are timed on a target; nothing here pauses meanwhile, and a study waits for it.

A fake `ssh` runs the agent on this machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from nas.evaluate import Evaluator
from nas.latency import Meter, measure_anchor, measure_together
from nas.setups import EngineRefused, SetUp, require_backend
from nas.target_meter import TargetMeter
from nas.training import TrainingConfig
from profiling.lane import Lane
from profiling.latency import Latency, TimedModel
from profiling.locks import try_lock, unlock
from profiling.onnx_export import onnxruntime_session
from profiling.target.addresses import add_address
from profiling.target.answers import Facts
from profiling.target.client import KnownTarget, reach
from profiling.target.errors import ModelRefusedError, TargetChangedError, TargetLostError
from profiling.target.measurement import Arrays
from profiling.timing import Sample
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.launch import run_study
from studies.record.records import StudyRecord
from studies.report.words import report_words
from studies.store.store import StudyStore
from tests.helpers.command import nas
from tests.helpers.targets import (
    HERE,
    SshServer,
    agents,
    fake_runtime,
    fake_ssh,
    refusing,
    ssh_server,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake ssh is a shell script")

SMALL = ORIGINAL.resized(16)
TINY = SearchSpace.load("tiny")
OTHER = TINY.architecture(next(TINY.enumerate())).resized(16)
QUICK = {
    "min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2,
    "priming_ms": 0, "min_sample_ms": 0,
}  # fmt: skip
FACTS = Facts.model_validate({
    "machine": "m", "boot": "b", "processor": "Board", "cores": 4, "memory_kib": 1e6,
    "system": "Linux 6", "python": "3.11", "executable": "python3", "managed": False,
    "numpy": "2.0", "onnxruntime": "1.20", "missing": {}, "temperature_c": 40.0,
    "governor": "performance", "clock_mhz": 1500.0, "max_clock_mhz": 2400.0,
})  # fmt: skip
KNOWN = KnownTarget(HERE, FACTS)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NAS_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("NAS_LANE_DIR", str(tmp_path / "here"))
    add_address(HERE)


def quick(**changes: Any) -> SetUp:
    return SetUp.model_validate({**QUICK, "target": "pi", **changes})


# The set-up


def test_a_target_runs_onnxruntime_in_float32() -> None:
    assert SetUp(target="pi").backend == "onnxruntime"
    assert SetUp(target="pi", backend="onnxruntime_rewritten").target == "pi"
    assert SetUp(target="pi", part="decoder").differing == "onnxruntime, decoder, on pi"
    assert SetUp(target="pi").runtime is None
    with pytest.raises(ValueError, match=r"backend: 'openvino' is not run on a target \('pi'\)"):
        SetUp(target="pi", backend="openvino")
    with pytest.raises(ValueError, match="precision: 'bfloat16' is not run on a target"):
        SetUp(target="pi", precision="bfloat16")


def test_a_further_set_up_may_be_elsewhere_or_here() -> None:
    asked = {"name": "s", "space": "tiny", "setups": {"board": {"target": "pi"}}}
    assert StudyConfig.model_validate(asked).setups["board"].backend == "onnxruntime"
    there = {"latency": {"target": "pi"}, "setups": {"here": {"target": None}}}
    config = StudyConfig.model_validate({**asked, **there})
    assert (config.latency.target, config.setups["here"].target) == ("pi", None)
    assert config.setups["here"].backend == "eager"
    assert StudyConfig.model_validate(config.to_dict()) == config


@pytest.mark.parametrize(
    ("first", "there"),
    [("openvino", "onnxruntime"), ("onnxruntime_rewritten", "onnxruntime_rewritten")],
)
def test_a_target_has_a_backend_that_runs_there(first: str, there: str) -> None:
    asked = {"name": "s", "space": "tiny", "latency": {"backend": first}}
    config = StudyConfig.model_validate({**asked, "setups": {"board": {"target": "pi"}}})
    assert (config.latency.backend, config.setups["board"].backend) == (first, there)


def test_exporting_needs_packages_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.setups.missing", lambda *names: "needs it: pip install it")
    with pytest.raises(UserError, match=r"latency.target: exporting .* for pi needs it: pip"):
        require_backend(quick(), torch.device("cuda"))


# Measuring, with a target that is made up


class MadeUp:
    """Stands in for a target: computes here, and takes as long as it is told."""

    waited_s = 0.0

    def __init__(self, *_: object, facts: Facts, **__: object) -> None:
        self.facts, self.sent = facts, list[bytes]()
        self.measured: list[dict[str, tuple[bytes, Sequence[Arrays]]]] = []

    def outputs(self, model: bytes, arguments: Arrays, threads: int) -> list[Any]:
        self.sent.append(model)
        run = onnxruntime_session(model, threads)
        return [one.numpy() for one in run(*map(torch.from_numpy, arguments))]

    def measure_latency(
        self, models: Mapping[str, bytes], batches: Mapping[str, Any], config: SetUp, **_: object
    ) -> dict[str, Latency]:
        here = Lane("cpu")
        (locks,) = here._all()
        assert try_lock(locks.room)  # neither a training nor a measurement of ours holds it
        unlock(locks.room)
        self.measured.append({name: (models[name], batches[name]) for name in models})
        self.waited_s += 3.0
        times = {"candidate": 2.0, "b": 5.0}
        return {
            name: Latency(
                TimedModel(name, ((1, 3, 16, 16),), "float32", 1, 1, backend="onnxruntime"),
                self.facts.environment(config.threads),
                tuple(Sample(times.get(name, 1.0), 1.0) for _ in range(12)),
            )
            for name in models
        }


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> type[MadeUp]:
    monkeypatch.setattr("nas.target_meter.Target", MadeUp)
    return MadeUp


def meter(setup: SetUp) -> tuple[TargetMeter, Any]:
    found = TargetMeter(setup, KNOWN, None)
    return found, found._target


@pytest.mark.usefixtures("made_up")
@pytest.mark.slow
def test_candidate_reference_and_twin_are_timed_in_the_same_rounds() -> None:
    one, target = meter(quick(batch=2))
    pair, waited_s = one.measure(OTHER)
    assert (pair.ratio.median, pair.twin_ratio.median, pair.attempts) == (2.0, 1.0, 1)
    assert waited_s >= 3.0  # those of the target, and those of the lane here
    (taken,) = target.measured
    assert list(taken) == ["candidate", "reference", "twin"]
    assert taken["twin"] == taken["reference"] != taken["candidate"]
    batches = taken["candidate"][1]
    # Noise for the latent is an input; the images of successive passes differ.
    shapes = [[array.shape for array in batch] for batch in batches]
    assert shapes == [[(2, 3, 16, 16), (2, OTHER.latent_size)]] * 8
    assert not np.array_equal(batches[0][0], batches[1][0])
    for name, digest in (("candidate", OTHER.digest), ("reference", SMALL.digest)):
        subject = pair.interleaved.taken[name].subject
        assert (subject.digest, subject.backend, subject.part) == (digest, "onnxruntime", "full")
        assert subject.fed == "16 images of uniform noise"
    assert pair.candidate.environment.runtime == "onnxruntime 1.20"
    assert pair.candidate.environment.device_name == "Board at 2400 MHz"


@pytest.mark.usefixtures("made_up")
@pytest.mark.slow
def test_the_reference_is_exported_once() -> None:
    one, target = meter(quick(part="encoder"))
    one.measure(OTHER)
    one.measure(OTHER)
    assert len(target.sent) == 3
    assert len(set(target.sent)) == 2


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("backend", ["onnxruntime", "onnxruntime_rewritten"])
@pytest.mark.slow
def test_several_are_timed_together(backend: str) -> None:
    one, target = meter(quick(part="decoder", backend=backend))
    found = one.together({"a": SMALL, "b": OTHER}, "a", {})
    assert found.ratio("b").median == 5.0
    (taken,) = target.measured
    assert [array.shape for array in taken["b"][1][0]] == [(1, OTHER.latent_size)]
    assert taken["a"][1] is taken["twin"][1]
    assert {one.subject.backend for one in found.taken.values()} == {backend}


@pytest.mark.slow
def test_an_output_that_is_not_the_model_s_is_refused(
    made_up: type[MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made_up.outputs

    def wrong(self: MadeUp, *args: Any) -> list[Any]:
        return [array + 0.01 for array in right(self, *args)]

    monkeypatch.setattr(made_up, "outputs", wrong)
    one, target = meter(quick())
    with pytest.raises(EngineRefused, match=r"^candidate on pi: its output differs from float64"):
        one.measure(OTHER)
    assert target.measured == []


@pytest.mark.parametrize("method", ["outputs", "measure_latency"])
@pytest.mark.parametrize("error", [ModelRefusedError, TargetChangedError])
@pytest.mark.slow
def test_only_a_model_that_cannot_run_fails_the_candidate(
    method: str, error: type[Exception], made_up: type[MadeUp], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("pi: no")

    monkeypatch.setattr(made_up, method, fail)
    expected = EngineRefused if error is ModelRefusedError else error
    with pytest.raises(expected, match=r"^pi: no$"):
        meter(quick())[0].measure(OTHER)


@pytest.mark.usefixtures("made_up")
def test_a_model_that_cannot_be_exported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise NotImplementedError("no such operator\nmore")

    monkeypatch.setattr("nas.target_meter.onnx_model", fail)
    with pytest.raises(EngineRefused, match=r"^candidate: cannot be exported \(no such operator\)"):
        meter(quick())[0].measure(OTHER)


@pytest.mark.usefixtures("made_up")
@pytest.mark.slow
def test_quiet_speeds_are_those_of_the_target(tmp_path: Path) -> None:
    meter(quick())[0].measure(OTHER)
    faster = KNOWN.facts.model_copy(update={"max_clock_mhz": 3000.0})
    TargetMeter(quick(), KnownTarget(HERE, faster), None).measure(OTHER)
    hotter = KNOWN.facts.model_copy(update={"temperature_c": 80.0, "boot": "another"})
    TargetMeter(quick(), KnownTarget(HERE, hotter), None).measure(OTHER)
    assert len(list((tmp_path / "cache" / "speeds").glob("*.json"))) == 2


# Measuring through ssh


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownTarget:
    fake_ssh(tmp_path / "bin", monkeypatch)
    return reach(HERE)


@pytest.mark.slow
def test_a_part_is_measured_in_another_process(reached: KnownTarget, tmp_path: Path) -> None:
    setup = quick(part="decoder")
    one = Meter(setup, reached)
    pair, _ = one.measure(OTHER)
    assert pair.candidate.subject.part == "decoder"
    assert pair.candidate.environment == reached.facts.environment(1)
    assert pair.ratio.median > 0
    together = measure_together({"original": SMALL}, "original", setup, reached)
    assert {one.subject.backend for one in together.taken.values()} == {"onnxruntime"}
    evaluator = Evaluator(
        None, TrainingConfig(), setup, torch.device("cpu"), ["latency_ms"], tmp_path / "artefacts",
        targets={"pi": reached},
    )  # fmt: skip
    *_, last = evaluator(OTHER)
    assert last.objectives["latency_ms"] > 0
    assert {"latency", "waiting"} <= last.timings_s.keys()


@pytest.mark.slow
def test_what_happens_to_the_target_is_reported(
    reached: KnownTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal, count = refusing("ssh: connect to host pi port 22: Connection refused"), "calls"
    once = f"echo >> {tmp_path / count}\nif [ $(wc -l < {tmp_path / count}) -le 1 ]; then\n"
    fake_ssh(tmp_path / "bin", monkeypatch, f"{once}{refusal}\nfi")
    with pytest.warns(RuntimeWarning) as noted:
        _, waited_s = Meter(quick(part="decoder"), reached).measure(OTHER)
    lines = [str(one.message) for one in noted]
    assert lines[0].startswith("pi: no connection (ssh: connect to host pi port 22: Connection")
    assert lines[1:] == ["pi: is reached again"]
    assert waited_s >= 1.0


@pytest.mark.slow
def test_a_target_that_is_not_as_recorded_is_not_used(reached: KnownTarget) -> None:
    before = reached.facts.model_copy(update={"onnxruntime": "1.20.0"})
    with pytest.raises(TargetChangedError, match=r"pi: has changed .*onnxruntime 1\.20\.0 -> "):
        measure_anchor(SMALL, quick(), KnownTarget(HERE, before))


@pytest.mark.slow
def test_models_are_measured_through_an_ssh_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real ssh, and the lane of this process
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "ssh").mkdir()
    with ssh_server(tmp_path / "ssh") as server:
        _measure_through(server)


def _measure_through(server: SshServer) -> None:
    pair, _ = Meter(quick(), reach(server.address)).measure(OTHER)
    assert len(pair.candidate.samples) == 2
    assert pair.candidate.environment.runtime is not None
    assert {path.name for path in server.lanes.iterdir()} == {"cpu.door", "cpu.room"}


# A study


CONFIG: dict[str, Any] = {
    "name": "s", "space": "tiny", "workers": 1, "search": {"trials": 1},
    "objectives": ["params", "latency_ms:board"], "latency": QUICK,
    "setups": {"board": {"target": "pi", "part": "decoder"}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("reached", "narrow_references")
def test_a_study_measures_on_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, gave_up = run_study(StudyConfig.model_validate(CONFIG), tmp_path)
    assert gave_up is None
    for trial in record.complete:
        assert {"latency_ms", "latency_ms:board"} <= trial.objectives.keys()
        stored = trial_file(record, trial.digest)
        assert stored["environment"]["runtime"].startswith("onnxruntime ")
        assert {one["part"] for one in stored["subjects"].values()} == {"decoder"}
    assert all("latency_ms_in_search:board" in one.metrics for one in record.front)
    there = record.environment["targets"]["pi"]
    assert there == reach(HERE).facts.lasting
    facts = dict(report_words(record)["facts"])
    assert facts["Further set-ups"] == (
        f"board: onnxruntime {there['onnxruntime']}, the decoder alone, on pi "
        f"({there['processor']})"
    )
    assert agents(tmp_path / "bin" / "lanes") == []
    # A target that has changed is not mixed in, unless the user accepts it.
    fake_runtime(tmp_path / "site", monkeypatch, "__version__ = '99.0'")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(CONFIG))
    assert nas("study", "run", str(tmp_path / "s.yaml"), "--root", str(tmp_path)) == 2
    message = capsys.readouterr().err
    assert "study 's' was measured in another environment (targets.pi.onnxruntime was" in message
    assert 'now "99.0")' in message
    assert StudyStore(record.folder).record().trials == record.trials


def trial_file(record: StudyRecord, digest: str) -> Any:
    path = record.folder / "artefacts" / digest / "latency-board.json"
    return json.loads(path.read_text())


def test_an_unknown_target_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--objectives", "params,latency_ms", "--root", str(tmp_path / "r"))
    assert nas("study", "run", "quickstart", "--target", "py", *arguments) == 2
    assert capsys.readouterr().err == (
        "nas: latency.target: target 'py' is not known (did you mean 'pi'?): the list has pi; nas "
        "target add adds one\n"
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backend", "eager"), "latency: backend: 'eager' is not run on a target ('pi'); use on"),
        (("--set", "latency.precision=bfloat16"), "latency: precision: 'bfloat16' is not run on"),
    ],
)
def test_other_backends_are_refused(
    options: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "r")
    assert nas("study", "run", "quickstart", "--target", "pi", *options, "--root", root) == 2
    assert words in capsys.readouterr().err


def test_a_target_that_is_off_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = refusing("ssh: connect to host pi port 22: Connection refused")
    fake_ssh(tmp_path / "bin", monkeypatch, refusal)
    with pytest.raises(TargetLostError, match=r"pi: no connection .*try it by hand: ssh"):
        run_study(StudyConfig.model_validate(CONFIG), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_paper_is_not_reproduced_on_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert nas("paper", "--estimate", "--set", "latency.target=pi") == 2
    assert "latency.target: the paper is reproduced on this machine" in capsys.readouterr().err
