"""Compare training recipes; each step continues where it was interrupted.

python -m benchmarks.recipes train --out FOLDER --photos FOLDER    about eight hours of two cores
python -m benchmarks.recipes build --out FOLDER                    trainings.csv from the records
python -m benchmarks.recipes summary                               the tables of docs/training.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.recipes.jobs import Job, plan, run
from benchmarks.recipes.summary import TRAININGS, build, summary


def main() -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("train", "build", "summary"))
    parser.add_argument("--out", type=Path, help="folder of the records, one for each training")
    parser.add_argument("--photos", type=Path, help="folder of photographs; without it, only faces")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--limit", type=int, help="number of trainings")
    parser.add_argument("--csv", type=Path, default=TRAININGS, help="table of all trainings")
    options = parser.parse_args()
    if options.step != "summary" and options.out is None:
        parser.error(f"{options.step}: give --out FOLDER")
    if options.step == "train":
        options.out.mkdir(parents=True, exist_ok=True)
        train(options.out, options.photos, options.workers, options.limit)
    elif options.step == "build":
        print(f"{options.csv}: {build(options.out, options.csv)} trainings")
    else:
        print(summary(options.csv))
    return 0


def train(folder: Path, photos: Path | None, workers: int, limit: int | None) -> None:
    """Make the trainings that the folder lacks, in the order of the plan."""
    wanted = [job for job in plan() if photos or job.images == "faces"][:limit]
    missing = [job for job in wanted if not job.file(folder).exists()]
    begun_s, before = time.monotonic(), len(wanted) - len(missing)
    for done, job in enumerate(_made(missing, folder, photos, workers), start=1):
        left_min = (time.monotonic() - begun_s) / done * (len(missing) - done) / 60
        print(f"{before + done}/{len(wanted)}, {left_min:.0f} min left: {job}", flush=True)


def _made(jobs: Sequence[Job], folder: Path, photos: Path | None, workers: int) -> Iterator[Job]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run, job, folder, photos) for job in jobs]
        for job, future in zip(jobs, running, strict=True):
            future.result()
            yield job


if __name__ == "__main__":
    sys.exit(main())
