"""Accuracy of the latency measurement: `python -m benchmarks.latency_trust --out DIR`.

Measures on an otherwise quiet machine and writes one CSV per question:

    quiet     architectures of a space, twice, without other work
    lane      the same inside a study of two workers that train, with the measurement lane
    no-lane   the same without the lane, for comparison
    itself    a model against itself: how often the interval includes 1, how often it is flagged
    loops     the same with one and two busy loops running: how often they are detected
    sessions  the same ratios from separate processes
    accuracy  the ratios of trained models against a plain loop over real images

An existing file is kept: remove it to measure again. `--only NAME` makes one file. The summary is
printed and written to summary.csv; `python -m benchmarks.latency_plots DIR` draws it.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from benchmarks.latency_accuracy import accuracy
from benchmarks.latency_summary import summary
from nas.datasets import DataConfig, load_dataset
from nas.evaluate import Evaluator
from nas.latency import measure_pair
from nas.objectives import TRAINED_OBJECTIVE
from nas.protocol import OnBatch
from nas.search.samplers import quiet_optuna
from nas.setups import Engines, SetUp, engines, inputs_of
from nas.timed_models import TimedImages, timed_model
from nas.training import TrainingConfig
from profiling.allocator import tune_allocator
from profiling.environment import fingerprint
from profiling.lane import Lane
from profiling.openmp import wait_passively
from profiling.paired import TWIN, PairedLatency, compare_latency
from profiling.quiet import QuietSpeed
from search_spaces.architecture import Architecture
from search_spaces.references import MODIFIED, ORIGINAL
from search_spaces.space import SearchSpace
from studies.run.crew import Evaluate, Workers

Row = dict[str, Any]

CONFIG = SetUp(max_s=5.0, attempts=2)
ONCE = CONFIG.model_copy(update={"attempts": 1})
IMAGES, EPOCHS = 150, 1
SPEEDS: dict[tuple[str, str], QuietSpeed] = {}
"""Quiet speed of each model that is compared with itself, by digest and set-up."""
ENGINES: dict[tuple[str, str], Engines | None] = {}
"""Engines of these models: as in a study, that of the reference is made once."""


def architectures(count: int, space: str = "quickstart") -> list[Architecture]:
    """Draw distinct architectures, each axis uniformly."""
    space_, found = SearchSpace.load(space), dict[str, Architecture]()
    with quiet_optuna():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=7))
        while len(found) < count:
            architecture = space_.architecture(space_.suggest(study.ask()))
            found.setdefault(architecture.digest, architecture)
    return list(found.values())


def row(pair: PairedLatency, **more: Any) -> Row:
    """Return the columns of a measurement, and `more`."""
    load = pair.interleaved.taken["twin"].load
    return {
        **more,
        "ratio": pair.ratio.median,
        "low": pair.ratio.interval.low,
        "high": pair.ratio.interval.high,
        "candidate_ms": pair.candidate.median_ms,
        "reference_ms": pair.reference.median_ms,
        "twin_ratio": pair.twin_ratio.median,
        "rounds": len(pair.interleaved.rounds),
        "quiet_rounds": pair.interleaved.quiet_count,
        "attempts": pair.attempts,
        "others": load.others if load else None,
        "contention": "; ".join(pair.contention),
    }


def quiet(count: int) -> Iterator[Row]:
    """Measure each architecture, and every other one a second time minutes later."""
    lane, device, all_ = Lane("cpu"), torch.device("cpu"), architectures(count)
    for sweep, chosen in ((1, all_), (2, all_[::2])):
        for architecture in chosen:
            pair = measure_pair(architecture, CONFIG, device, lane)
            yield row(pair, digest=architecture.digest, sweep=sweep)


@dataclass(frozen=True)
class Maker:
    """Makes a worker's evaluator; with `apart` each worker has its own lane, so that none waits."""

    artefacts: Path
    apart: bool
    latency: SetUp

    def __call__(self, on_batch: OnBatch) -> Evaluate:
        """Return the evaluator of one worker."""
        tune_allocator()
        if self.apart:  # the measuring process inherits it
            os.environ["NAS_LANE_DIR"] = tempfile.mkdtemp(dir=self.artefacts)
        return Evaluator(
            dataset=load_dataset(DataConfig(kind="faces", count=IMAGES), 64),
            training=TrainingConfig(epochs=EPOCHS, batch_size=16),
            latency=self.latency,
            device=torch.device("cpu"),
            wanted=("latency_ms", TRAINED_OBJECTIVE),
            artefacts=self.artefacts,
            thread_count=1,
            on_batch=on_batch,
        )


def in_a_study(
    members: Iterable[Architecture], *, apart: bool, latency: SetUp = CONFIG
) -> Iterator[Row]:
    """Evaluate each architecture with two workers: one measures while the other trains."""
    load_dataset(DataConfig(kind="faces", count=IMAGES), 64)
    left, running, number = list(members), dict[int, Architecture](), 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Workers(2, Maker(Path(folder), apart, latency)) as crew,
    ):
        while left or running:
            while left and len(running) < crew.size:
                running[number] = left.pop(0)
                crew.start(number, running[number])
                number += 1
            event = crew.next()
            if event.kind == "found":
                crew.answer(event.number, go_on=True)
                assert event.findings is not None
                if event.findings.step == "done":
                    found, metrics = event.findings, event.findings.metrics
                    yield {
                        "digest": running[event.number].digest,
                        "ratio": metrics["latency_over_original"],
                        "low": metrics["latency_over_original_low"],
                        "high": metrics["latency_over_original_high"],
                        "attempts": metrics["latency_attempts"],
                        "contended": found.contended,
                        **{f"{step}_s": spent for step, spent in found.timings_s.items()},
                    }
            elif event.kind == "ended":
                del running[event.number]
            elif event.kind != "batch":
                raise RuntimeError(f"{event.kind}: {event.reason}")


def against_itself(count: int) -> Iterator[Row]:
    """Compare five models in turn with copies of themselves, `count` times in all."""
    models = own_models()
    for number in range(count):
        yield itself(models[number % len(models)], beside="nothing")


def own_models() -> list[Architecture]:
    """Return the five models that are compared with themselves."""
    return [ORIGINAL.resized(64), MODIFIED.resized(64), *architectures(3)]


def itself(architecture: Architecture, beside: str, setup: SetUp = ONCE) -> Row:
    """Compare an architecture with a copy of itself, once, in a set-up."""
    images, lane, cpu = TimedImages.noise(architecture.image_size), Lane("cpu"), torch.device("cpu")
    model, _ = timed_model(architecture, images)
    key = architecture.digest, setup.differing
    if key not in ENGINES:
        ENGINES[key] = engines(setup, cpu, lane, keep=("reference", TWIN))
    pair = compare_latency(
        copy.deepcopy(model),
        model,
        inputs_of(model, images.tensor(), setup),
        setup,
        quiet=SPEEDS.setdefault(key, QuietSpeed()),
        alone=lane.measuring,
        prepare=ENGINES[key],
    )
    return row(pair, digest=architecture.digest, beside=beside)


LOOP = "while True: pass"


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep `count` processes busy while the body runs."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def beside_loops(count: int) -> Iterator[Row]:
    """Compare models with themselves while one busy loop runs, then two."""
    models = own_models()
    for loops in (1, 2):
        with busy_loops(loops):
            for number in range(count):
                yield itself(models[number % len(models)], beside=f"{loops} busy")


def sessions(count: int) -> Iterator[Row]:
    """Measure three ratios in each of `count` separate processes."""
    for session in range(count):
        command = [sys.executable, "-m", "benchmarks.latency_trust", "--session"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield from ({"session": session, **json.loads(line)} for line in lines.splitlines())


def one_session() -> None:
    """Print the ratios of a few architectures, one JSON per line."""
    tune_allocator()
    for architecture in (MODIFIED.resized(64), *architectures(3)):
        pair = measure_pair(architecture, CONFIG, torch.device("cpu"), Lane("cpu"))
        print(json.dumps(row(pair, digest=architecture.digest)))


def save(path: Path, rows: Iterator[Row], total: int) -> None:
    """Write rows as they come, to a file that gets its name when it is complete."""
    unfinished, start, written = path.with_suffix(".part"), time.monotonic(), list[Row]()
    for done, one in enumerate(rows, start=1):
        written.append(one)
        left_s = (time.monotonic() - start) / done * (total - done)
        print(f"\r{path.stem} {done}/{total}, {left_s:.0f} s left   ", end="", file=sys.stderr)
        fields = list(dict.fromkeys(key for one in written for key in one))
        with unfinished.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, fields, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rounded(one) for one in written)
    unfinished.replace(path)
    print(file=sys.stderr)


def rounded(one: Row) -> Row:
    """Return a row with six significant digits."""
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in one.items()}


PLANS: dict[str, tuple[Callable[[int], Iterator[Row]], int, Callable[[int], int]]] = {
    "quiet": (quiet, 40, lambda n: n + (n + 1) // 2),
    "itself": (against_itself, 200, lambda n: n),
    "loops": (beside_loops, 30, lambda n: 2 * n),
    "sessions": (sessions, 10, lambda n: 4 * n),
    "accuracy": (
        lambda n: accuracy(architectures(n, "wide@64"), CONFIG),
        20,
        lambda n: n,
    ),
    "lane": (lambda n: in_a_study(architectures(n), apart=False), 40, lambda n: n),
    "no-lane": (lambda n: in_a_study(architectures(n), apart=True), 40, lambda n: n),
}
"""How each file is made: rows, default count, and how many rows a count makes."""


def main() -> None:
    """Make the files that are missing, then print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("latency-trust"))
    parser.add_argument("--only", choices=list(PLANS), action="append")
    parser.add_argument("--count", type=int, help="Repetitions instead of the default.")
    parser.add_argument("--session", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    wait_passively()
    if asked.session:
        one_session()
        return
    tune_allocator()
    asked.out.mkdir(parents=True, exist_ok=True)
    environment = asked.out / "environment.json"
    environment.write_text(fingerprint().model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in asked.only or PLANS:
        make, count, rows = PLANS[name]
        path, count = asked.out / f"{name}.csv", asked.count or count
        if not path.exists():
            save(path, make(count), rows(count))
    lines = summary(asked.out)
    with (asked.out / "summary.csv").open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("what", "figure", "goal"), *lines])
    for what, figure, goal in lines:
        print(f"{what:34}{figure:74}{goal}")


if __name__ == "__main__":
    main()
