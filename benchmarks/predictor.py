"""Accuracy and speed of the latency predictor on this machine.

`python -m benchmarks.predictor` measures 200 architectures of `wide` for the fit and 120 others as
a check, in about twenty minutes. It continues where an earlier run (or `nas profile calibrate`)
was interrupted. `--csv PATH` writes every held-out architecture with its predictions. `--backend`
and `--part` choose another set-up, in which whole models are timed (about 10 s each).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from nas.predict.accuracy import baselines, check
from nas.predict.calibration import Setting, drawn
from nas.predict.predictor import LatencyPredictor
from profiling.openmp import wait_passively
from search_spaces.space import SearchSpace
from studies.cli.options import progress_bar
from studies.cli.predict import print_accuracy

WITHIN_10, SPEARMAN, PER_SECOND = 0.90, 0.97, 10_000
_SCORED = 2000

T = TypeVar("T")


def main() -> None:
    """Calibrate the predictor if necessary; print its accuracy and speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calibration", type=int, default=200, help="architectures for the fit")
    parser.add_argument("--held-out", type=int, default=120, help="held-out architectures")
    parser.add_argument("--space", default="wide")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--part", default="full")
    parser.add_argument("--csv", type=Path, help="write measured and predicted ratios here")
    options = parser.parse_args()
    wait_passively()
    from nas.setups import SetUp
    from profiling.environment import select_device

    space = SearchSpace.load(options.space)
    device = str(select_device(options.device))
    names = ("backend", "part", "threads", "batch")
    setup = SetUp.model_validate({name: getattr(options, name) for name in names})
    setting = Setting.of(setup, device, space.image_size)
    start = time.monotonic()
    with progress_bar("measuring") as progress:
        predictor = LatencyPredictor.calibrate(
            setting, space, options.calibration, options.held_out, progress=progress
        )
    print(f"measured and fitted in {(time.monotonic() - start) / 60:.1f} minutes")
    print_accuracy(predictor)
    print_verdict(predictor)
    print_speed(predictor, space)
    if options.csv:
        write_csv(predictor, options.csv)


def print_verdict(predictor: LatencyPredictor) -> None:
    """Print whether the goal is reached, and the safety margin for limits."""
    ours = check(predictor)[0]
    reached = ours.within_10 >= WITHIN_10 and ours.spearman >= SPEARMAN
    print(
        f"goal ({WITHIN_10:.0%} within 10 %, Spearman {SPEARMAN}): "
        f"{'reached' if reached else 'NOT reached'}; safety margin {predictor.margin:.3f}"
    )


def print_speed(predictor: LatencyPredictor, space: SearchSpace) -> None:
    """Time scoring and vectorising, for new architectures and for known ones."""
    architectures = list(itertools.islice(drawn(space, seed=2), _SCORED))
    arrays, first = timed(lambda: predictor.vectorise(architectures))
    _, learnt = timed(
        lambda: predictor.predict_ratio(arrays)
    )  # includes operations that are new here
    _, again = timed(lambda: predictor.vectorise(architectures))
    _, scored = timed(lambda: predictor.predict_ratio(arrays))
    verdict = "reached" if _SCORED / scored >= PER_SECOND else "NOT reached"
    print(
        f"architectures a second: {_SCORED / scored:,.0f} scored (goal {PER_SECOND:,}: {verdict})"
    )
    print(f"vectorised and scored: {_SCORED / (again + scored):,.0f}; at first sight ", end="")
    print(f"{_SCORED / (first + learnt):,.0f}")


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """Return the result of `run` and its duration in seconds."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def write_csv(predictor: LatencyPredictor, path: Path) -> None:
    """Write one line per held-out architecture."""
    held_out = predictor.calibration.of("held_out")
    architectures = [measurement.architecture for measurement in held_out]
    named = {"predictor": predictor.predict_ratio, **baselines(predictor)}
    predicted = np.column_stack([predict(architectures) for predict in named.values()])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [name.replace(" ", "_").lower() for name in named]
        measured = ["measured", "measured_cpu_time"]
        writer.writerow(["digest", *measured, *names, "contended", "original_ms"])
        for measurement, line in zip(held_out, predicted, strict=True):
            found = measurement.ratio, measurement.undisturbed_ratio
            ratios = [f"{ratio:.5f}" for ratio in (*found, *line)]
            end = [measurement.contended, f"{measurement.original_ms:.3f}"]
            writer.writerow([measurement.architecture.digest, *ratios, *end])
    print(f"{path}: {len(held_out)} architectures")


if __name__ == "__main__":
    main()
