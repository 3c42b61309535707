"""Make the table: `python -m benchmarks.vae_table train|latency|build --out FOLDER`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.vae_table.protocol import TableProtocol
from benchmarks.vae_table.training import train_all


def main() -> None:
    """Run one step; each goes on where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vae_table", description=__doc__)
    steps = parser.add_subparsers(required=True)
    train = _step(steps, "train", "train every architecture (about an hour on one core)", _train)
    train.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    train.add_argument("--limit", type=int, help="only so many, for a second seed")
    options = parser.parse_args()
    options.run(options)


def _step(steps, name: str, help: str, run) -> argparse.ArgumentParser:
    parser = steps.add_parser(name, help=help)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and noise")
    parser.set_defaults(run=run)
    return parser


def _protocol(options: argparse.Namespace) -> TableProtocol:
    standard = TableProtocol()
    training = standard.training.model_copy(update={"seed": options.seed})
    return standard.model_copy(update={"training": training})


def _train(options: argparse.Namespace) -> None:
    train_all(
        options.out, _protocol(options), options.workers, options.limit, TimeLeft("trained")
    )


class TimeLeft:
    """Prints one line per step with the time left, from the steps of this run."""

    def __init__(self, done: str) -> None:
        self._word, self._start_s, self._first = done, time.monotonic(), 0

    def __call__(self, done: int, total: int) -> None:
        """Tell (done, total)."""
        self._first = self._first or done - 1
        spent_s = time.monotonic() - self._start_s
        left_s = spent_s / (done - self._first) * (total - done)
        print(f"{self._word} {done}/{total}, {left_s / 60:.0f} min left", flush=True)


if __name__ == "__main__":
    sys.exit(main())
