"""Latency measured in a process that does nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.checkpoint import save_weights
from nas.evaluate import Evaluator
from nas.latency import Meter, measure_together
from nas.setups import SetUp
from nas.timed_models import INITIAL, TRAINED, TimedImages
from nas.training import CandidateFailed, TrainingConfig
from nas.vae import build_vae
from profiling.fresh_process import MOST_ENDED, ProcessEndedError
from search_spaces.architecture import Architecture
from search_spaces.references import MODIFIED, ORIGINAL
from tests.fakes.dataset import noise

SMALL = ORIGINAL.resized(16)
ONCE = SetUp(min_rounds=2, max_rounds=2, attempts=1, warmup_window=1, max_warmup=2)
CPU = torch.device("cpu")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def speeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))


def kill(meter: Meter) -> None:
    assert meter._process is not None
    meter._process._process.kill()
    meter._process._process.join()


def test_a_process_that_ended_is_reported_and_replaced() -> None:
    meter = Meter(ONCE, CPU)
    pair, waited_s = meter.measure(SMALL)
    assert pair.candidate.subject.digest == SMALL.digest
    assert pair.ratio.median > 0
    assert waited_s >= 0
    kill(meter)
    with pytest.raises(ProcessEndedError, match="ended unexpectedly"):
        meter.measure(SMALL)
    assert len(meter.measure(SMALL)[0].candidate.samples) == 2


def test_a_candidate_that_ends_every_measuring_process_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(None, TrainingConfig(), ONCE, CPU, ["latency_ms"], tmp_path)
    *_, last = evaluator(SMALL)
    assert last.objectives["latency_ms"] > 0
    assert (tmp_path / SMALL.digest / "latency.json").exists()
    kill(evaluator.meters[""])  # one that was killed need not be the candidate's fault
    *_, last = evaluator(SMALL)
    assert last.objectives["latency_ms"] > 0
    tries: list[Architecture] = []

    def ended(architecture: Architecture) -> None:
        tries.append(architecture)
        raise ProcessEndedError("process: ended")

    monkeypatch.setattr(evaluator.meters[""], "measure", ended)
    with pytest.raises(CandidateFailed, match="while its latency was measured"):
        list(evaluator(SMALL))
    assert tries == [SMALL] * MOST_ENDED


def test_several_are_measured_together_with_the_same_rounds() -> None:
    anchors = {"original": SMALL, "modified": MODIFIED.resized(16)}
    seen: list[tuple[int, int]] = []
    turns = measure_together(
        anchors, "original", ONCE, CPU, progress=lambda done, total: seen.append((done, total))
    )
    assert {len(one.samples) for one in turns.taken.values()} == {2}
    assert turns.ratio("modified").median > 0
    assert turns.ratio("original", "modified").median > 0
    assert seen == [(1, 2), (2, 2)]
    assert {one.subject.fed for one in turns.taken.values()} == {"16 images of uniform noise"}
    assert {one.subject.weights for one in turns.taken.values()} == {INITIAL}


def test_images_and_trained_weights_reach_the_measuring_process(tmp_path: Path) -> None:
    path, images = tmp_path / "weights.safetensors", TimedImages.of(noise(40, 16))
    save_weights(build_vae(SMALL, seed=3), path)
    turns = measure_together(
        {"original": SMALL, "modified": MODIFIED.resized(16)},
        "original",
        ONCE,
        CPU,
        images,
        {"original": path},
    )
    weights = {name: one.subject.weights for name, one in turns.taken.items()}
    assert weights == {"original": TRAINED, "twin": TRAINED, "modified": INITIAL}
    assert {one.subject.fed for one in turns.taken.values()} == {images.about}
    pair, _ = Meter(ONCE, CPU, images).measure(SMALL)
    assert pair.candidate.subject.fed == images.about
