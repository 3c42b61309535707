"""Made-up images, timings and results of both models, for the tests of `studies.paper`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.findings import Findings
from search_spaces.references import REFERENCES
from studies.config.loading import load_config
from studies.paper.attributes import STRENGTHS
from studies.paper.inference import LOSS_TERMS
from studies.paper.results import ModelResults, PaperResults
from studies.paper.smoothness import MEASURES, SHOWN_STEPS
from studies.paper.stored import Array
from studies.paper.timing import Timing
from studies.paper.traversal import STEPS
from studies.record.records import StudyRecord, TrialRecord
from studies.run.images import data_facts
from tests.fakes.dataset import noise
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.findings import epoch

TEST, SIDE = 40, 16


def timing(batch: int = 1, slower: float = 4.0, contention: tuple[str, ...] = ()) -> Timing:
    """`modified` takes `slower` times as long, known to 1 %."""
    return Timing(
        batch=batch,
        threads=1,
        rounds=30,
        median_ms={"original": 10.0, "modified": 10 * slower},
        interval_ms={"original": (9.9, 10.1), "modified": (9.9 * slower, 10.1 * slower)},
        spread={"original": 0.02, "modified": 0.03},
        slower=(slower, 0.99 * slower, 1.01 * slower),
        contention=contention,
        papers_ms={"original": (11.0, 2.0), "modified": (11 * slower, 3.0)},
        device_name="Some CPU",
        source="fake",
    )


def results(
    folder: Path,
    *,
    worse: float = 0.1,
    rougher: float = 0.1,
    span: float = 0.8,
    labelled: bool = True,
    slower: float = 4.0,
) -> PaperResults:
    """Results in which `modified` has a loss higher by `worse`, steps less even by `rougher`."""
    rng = np.random.default_rng(1)
    labels = np.stack([np.arange(TEST) % 2 == 0, np.arange(TEST) % 3 == 0], axis=1)
    labels = labels if labelled else labels[:, :0]
    original, modified = (
        _model(rng, labels, loss, uneven, span)
        for loss, uneven in ((0.5, 0.4), (0.5 + worse, 0.4 + rougher))
    )
    photos = rng.integers(0, 256, size=(16, 3, SIDE, SIDE), dtype=np.uint8)
    return PaperResults(
        study=study(folder),
        timings=(timing(1, slower), timing(32, slower)),
        models={"original": original, "modified": modified},
        samples=photos,
        photos=photos[:8],
        judged=("Eyeglasses", "Male") if labelled else (),
        labels=labels,
        pixels=labels,
        pair_photos=photos[:6].reshape(3, 2, 3, SIDE, SIDE),
    )


def study(folder: Path) -> StudyRecord:
    """A study of the two references alone, at 16 pixels, of two epochs."""
    config = load_config("paper-table", {"training.epochs": 2, "data.count": 260})
    history = [epoch(number, 0.8 / number, 0.9 / number) for number in (1, 2)]
    trials = [
        TrialRecord(
            number=number,
            state="complete",
            digest=one.resized(SIDE).digest,
            architecture=one.resized(SIDE),
            reference=name,
            findings=Findings("done", dict.fromkeys(config.objectives, 0.4), history=history),
        )
        for number, (name, one) in enumerate(REFERENCES.items())
    ]
    return StudyRecord(
        name="paper-table",
        objectives=config.selected,
        trials=tuple(trials),
        config=config.to_dict(),
        environment={**ENVIRONMENT, "device_name": "Some CPU", **data_facts(noise(260, SIDE))},
        folder=folder,
    )


def without(study: StudyRecord, reason: str) -> StudyRecord:
    """The study with its last reference failed."""
    failed = replace(study.trials[-1], state="failed", reason=reason)
    return replace(study, trials=(*study.trials[:-1], failed))


def _model(
    rng: np.random.Generator, labels: Array, loss: float, uneven: float, span: float
) -> ModelResults:
    def images(*shape: int) -> Array:
        return rng.integers(0, 256, size=(*shape, 3, SIDE, SIDE), dtype=np.uint8)

    quality = {name: loss + 0.01 * rng.normal(size=TEST) for name in LOSS_TERMS}
    ways = {name: uneven + 0.01 * rng.normal(size=20) for name in MEASURES}
    moved = {
        "images": images(2, len(STRENGTHS)),
        "share": np.linspace(0, 1, len(STRENGTHS)),
        "balanced": np.array([0.9]),
        "rows": np.arange(2),
    }
    seen = labels ^ (rng.random(labels.shape) < 0.2)
    scores = {"seen": seen, "silhouette": np.full(labels.shape[1], 0.1)}
    return ModelResults(
        test={
            **quality,
            "mean": rng.normal(size=(TEST, 128)),
            "log_variance": np.zeros((TEST, 128)),
        },
        rebuilt=images(8),
        places=rng.normal(size=(TEST, 2)),
        effect=np.linspace(0, 1, 128),
        dimensions=(20, 127),
        traversed=images(2, len(STEPS)),
        interpolation={**ways, "span": np.full(20, span), "images": images(3, SHOWN_STEPS)},
        scores=scores if labels.shape[1] else {},
        manipulated={"Eyeglasses": moved} if labels.shape[1] else {},
    )
