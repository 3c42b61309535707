"""Measure all latencies of a finished study again: `python -m benchmarks.remeasure FOLDER`.

For studies that were measured by an earlier protocol or on another machine, and whose weights may
be gone. Every complete trial is timed together with both references, in groups, and the record
gets these latencies and the latency of `original` on this machine. Losses are not changed. The
times in `paper/` of a study that `nas paper` made are measured again as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from nas.datasets import DataConfig, load_dataset
from nas.latency import measure_anchor
from nas.setups import SetUp
from nas.timed_models import TimedImages
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint
from profiling.openmp import wait_passively
from profiling.progress import Progress
from search_spaces.references import ORIGINAL, REFERENCES
from studies.paper.timing import BATCHES, TrainedModels, config_for, load_or_measure
from studies.record.records import StudyRecord
from studies.run.final_latency import measure_trials
from studies.store.store import StudyStore

CPU = torch.device("cpu")


def remeasure(folder: Path, max_s: float) -> None:
    """Measure all complete trials of the study in `folder`, and record their latencies."""
    store = StudyStore.open(folder.parent, folder.name)
    with store.writing():
        record = store.record()
        latency = SetUp(**{**record.config["latency"], "max_s": max_s})
        data = DataConfig(**record.config["data"])
        images = TimedImages.of(load_dataset(data, record.image_size, _shown("loading")))
        anchor_ms = measure_anchor(ORIGINAL.resized(record.image_size), latency, CPU, images)
        trials = {t.digest: t.architecture for t in record.complete if not t.reference}
        found = measure_trials(store, trials, latency, CPU, images, _shown(folder.name))
        here = fingerprint(CPU).model_dump()
        facts = {"timed_on": images.about, "original_latency_ms": anchor_ms}
        store.study.set_user_attr("environment", {**record.environment, **here, **facts})
        store.set_final_latency(found)
    _times_of_paper(folder, record, latency, images)


def _times_of_paper(folder: Path, record: StudyRecord, latency: SetUp, images: TimedImages) -> None:
    models = {name: one.resized(record.image_size) for name, one in REFERENCES.items()}
    for batch in BATCHES:
        path = folder / "paper" / f"latency-{batch}.json"
        if path.exists():
            path.unlink()
            again, shown = config_for(latency, batch), _shown(f"batch {batch}")
            load_or_measure(TrainedModels(models, images, {}), again, CPU, path, shown)


def _shown(label: str) -> Progress:
    def show(done: int, total: int) -> None:
        print(f"\r{label} {done}/{total}   ", end="\n" * (done == total), file=sys.stderr)

    return show


def main() -> None:
    """Measure the studies that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path, help="folders of studies")
    parser.add_argument("--max-s", type=float, default=4.0, help="seconds for each architecture")
    asked = parser.parse_args()
    wait_passively()
    tune_allocator()
    for folder in asked.folders:
        remeasure(folder, asked.max_s)


if __name__ == "__main__":
    main()
