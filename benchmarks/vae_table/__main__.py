"""Make the table of trained VAEs; each step continues where it was interrupted.

python -m benchmarks.vae_table train --out FOLDER     about 70 minutes on one quiet core
python -m benchmarks.vae_table latency --out FOLDER   about ten minutes on a quiet machine
python -m benchmarks.vae_table build --out FOLDER --to FILE

The losses of further seeds tell how much two trainings of one member differ:

python -m benchmarks.vae_table train --seed 1 --limit 44 --out FOLDER-1
python -m benchmarks.vae_table build --out FOLDER --further FOLDER-1

The same members trained on photographs, and whether their order is that of rendered faces:

python -m benchmarks.vae_table train --photographs PICTURES --limit 44 --out PHOTOGRAPHS
python -m benchmarks.photographs --faces FOLDER --photographs PHOTOGRAPHS
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.vae_table.latency import measure_all
from benchmarks.vae_table.parquet import build
from benchmarks.vae_table.protocol import TableProtocol
from benchmarks.vae_table.training import train_all
from search_spaces.errors import UserError

TABLE = Path("studies/bench/data/vae_table.parquet")


def main() -> int:
    """Run one step."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.vae_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("train", "latency", "build"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and noise")
    parser.add_argument("--workers", type=int, default=1, help="train: processes of one thread")
    parser.add_argument("--limit", type=int, help="train, latency: number of architectures")
    parser.add_argument("--photographs", type=Path, help="train: on the images of this folder")
    parser.add_argument("--to", type=Path, default=TABLE, help="build: the file (%(default)s)")
    parser.add_argument(
        "--further",
        type=Path,
        action="append",
        default=[],
        help="build: folder of another seed; its number is its place, from 1 (repeatable)",
    )
    parser.add_argument("--partial", action="store_true", help="build: leave out what is missing")
    options = parser.parse_args()
    try:
        print(_run(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> str:
    protocol = TableProtocol().with_seed(options.seed)
    if options.photographs:
        protocol = protocol.on_photographs(options.photographs)
    if options.step == "train":
        progress = TimeLeft("trained")
        count = train_all(options.out, protocol, options.workers, options.limit, progress)
        return f"{count} trained"
    if options.step == "latency":
        progress = TimeLeft("measured")
        contended = measure_all(options.out, protocol, limit=options.limit, progress=progress)
        return f"{contended} are contended; run again on a quiet machine to replace them"
    rows = build(options.out, protocol, options.to, options.further, partial=options.partial)
    return f"{options.to}: {rows} rows, {options.to.stat().st_size / 1e6:.2f} MB"


class TimeLeft:
    """A callback that prints a line per step with the time left, estimated from this run."""

    def __init__(self, word: str) -> None:
        self._word, self._start_s, self._before = word, time.monotonic(), -1

    def __call__(self, done: int, total: int) -> None:
        """Print the progress."""
        if self._before < 0:
            self._before = done - 1
        step_s = (time.monotonic() - self._start_s) / (done - self._before)
        print(f"{self._word} {done}/{total}, {step_s * (total - done) / 60:.0f} min left")


if __name__ == "__main__":
    sys.exit(main())
