"""The final measurement of the front: which models are measured, and how it is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.findings import Findings
from nas.setups import SetUp
from nas.timed_models import TimedImages
from profiling.environment import fingerprint
from profiling.latency import Latency, TimedModel
from profiling.paired import InterleavedLatencies
from profiling.timing import Sample
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.record.comparison import compare
from studies.run import final_latency
from studies.run.crew import Alone
from studies.run.final_latency import measure_front
from studies.run.runner import Runner
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config

ASKED = config(objectives=["reconstruction_loss", "latency_ms"])
ANCHOR_MS = 10.0


class Measured(FakeEvaluator):
    """Finds a latency from 14 to 28 ms, the lower the worse the loss; half are beaten in both."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            loss = findings.objectives.get("reconstruction_loss", 0.5)
            slower = 1.4 if int(architecture.digest, 16) % 2 else 1.0
            found = {**findings.objectives, "latency_ms": slower * (20 - 5 * loss)}
            yield Findings(findings.step, found, intervals={"latency_ms": (1.0, 99.0)})


class Bench:
    """Stands in for measuring: each architecture takes `times` as long as `original`."""

    def __init__(self, times: Callable[[str], float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.times, self.groups = times, list[list[str]]()
        self.images: TimedImages | None = None
        self.weights: Mapping[str, Path] = {}
        monkeypatch.setattr(final_latency, "measure_together", self)

    def __call__(
        self, architectures: Mapping[str, Architecture], base: str, *rest: Any
    ) -> InterleavedLatencies:
        assert base == "original"
        self.groups.append(list(architectures))
        _latency, _device, self.images, self.weights, _progress = rest
        taken = {
            name: Latency(
                TimedModel(name, ((1, 3, 64, 64),), "float32", 1, 1, weights=f"those of {name}"),
                fingerprint(),
                tuple(Sample(t, t) for t in [100 * self._ratio(name)] * 9),
            )
            for name in (*architectures, "twin")
        }
        return InterleavedLatencies(taken, base, quiet_ms=100.0, least=9)

    def _ratio(self, name: str) -> float:
        return {"original": 1.0, "twin": 1.0, "modified": 3.0}.get(name) or self.times(name)


def a_store(root: Path, trials: int = 12) -> StudyStore:
    store, space = StudyStore(root / "s"), SearchSpace.load("quickstart")
    store.create(ASKED, space, {**ENVIRONMENT, "original_latency_ms": ANCHOR_MS})
    asked = config(objectives=ASKED.objectives, search={"sampler": "random", "trials": trials})
    Runner(asked, space, store, Alone(Measured())).run()
    return store


def measure(store: StudyStore) -> Any:
    images, cpu = TimedImages.noise(64), torch.device("cpu")
    return measure_front(store, SetUp(), cpu, images, lambda done, total: None)


def test_the_front_and_both_references_are_reported_as_measured_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    before = {t.digest for t in store.record().front if not t.reference}
    bench = Bench(lambda digest: 0.5, monkeypatch)
    record = measure(store)
    assert record.measured_together
    assert set(bench.groups[0]) == before | set(REFERENCES)
    assert record.references["original"].objectives["latency_ms"] == ANCHOR_MS
    assert record.references["modified"].objectives["latency_ms"] == 3 * ANCHOR_MS
    front = [trial for trial in record.front if not trial.reference]
    assert front
    assert all(trial.objectives["latency_ms"] == 0.5 * ANCHOR_MS for trial in front)
    assert all(trial.metrics["latency_ms_in_search"] > 10 for trial in front)


def test_what_enters_the_front_by_the_new_values_is_measured_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    bench = Bench(lambda digest: 9.0, monkeypatch)  # slower than any the search had seen
    record = measure(store)
    assert len(bench.groups) >= 2
    measured = {name for group in bench.groups for name in group}
    assert {t.digest for t in record.front if not t.reference} <= measured
    assert all(set(first) <= set(second) for first, second in pairwise(bench.groups))


def test_nothing_is_measured_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = a_store(tmp_path)
    bench = Bench(lambda digest: 0.5, monkeypatch)
    first = measure(store)
    groups = len(bench.groups)
    assert measure(StudyStore.open(tmp_path, "s")) == first
    assert len(bench.groups) == groups


def test_a_large_front_is_measured_in_groups_each_with_the_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_latency, "TOGETHER", 2)
    store = a_store(tmp_path, trials=40)
    bench = Bench(lambda digest: 0.5, monkeypatch)
    measure(store)
    assert len(bench.groups) > 1
    assert all(set(REFERENCES) < set(group) and len(group) <= 4 for group in bench.groups)


def test_references_are_compared_by_the_ratio_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    Bench(lambda digest: 0.5, monkeypatch)
    record = measure(store)
    best = next(trial for trial in record.front if not trial.reference)
    compared = compare(record, best, record.references["modified"])
    assert compared.factors["latency_ms"] == pytest.approx(6.0)
    assert compared.verdicts["latency_ms"] == 1


def test_trained_weights_are_measured_where_the_study_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = a_store(tmp_path)
    trial = next(trial for trial in store.record().front if not trial.reference)
    file = store.artefacts / trial.digest / "weights.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    bench = Bench(lambda digest: 0.5, monkeypatch)
    measure(store)
    assert bench.weights == {trial.digest: file}
    assert bench.images == TimedImages.noise(64)
    final = StudyStore.open(tmp_path, "s").final_latency()
    assert final[trial.digest].weights == f"those of {trial.digest}"
    assert final[REFERENCES["original"].resized(64).digest].weights == "those of original"


def test_latencies_on_other_images_are_not_mixed(tmp_path: Path) -> None:
    store, space = a_store(tmp_path), SearchSpace.load("quickstart")
    faces = {**ENVIRONMENT, "original_latency_ms": ANCHOR_MS, "timed_on": "16 images of faces"}
    with pytest.raises(UserError, match=r"timed_on was null, now .16 images of faces"):
        store.create(ASKED, space, faces)


def test_environments_are_mixed_only_on_request(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    other = {**ENVIRONMENT, "torch_version": "2.14.0", "original_latency_ms": ANCHOR_MS}
    space = SearchSpace.load("quickstart")
    with pytest.raises(UserError, match=r"torch_version was .2\.13\.0.*--mix-environments"):
        store.create(ASKED, space, other)
    assert store.record().mixed == ()
    store.create(ASKED, space, other, mix=True)
    store.create(ASKED, space, other)
    (difference,) = store.record().mixed
    assert "torch_version" in difference
