"""Measure the figures of docs/deployment.md; every command continues where it was interrupted.

    python -m benchmarks.deployment orders    about 80 minutes
    python -m benchmarks.deployment modified  about 15 minutes
    python -m benchmarks.deployment search    about 45 minutes
    python -m benchmarks.deployment alarms    about an hour
    python -m benchmarks.deployment loopback  about 5 minutes; needs a target that is this machine
    python -m benchmarks.deployment summary   prints the tables of all of them

Measure on an otherwise quiet machine. Every row is in a CSV file in --out when it is measured, so
a command that is killed loses at most the measurement that was running.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from profiling.openmp import wait_passively
from search_spaces.errors import UserError

OUT = Path("benchmarks/results/deployment")
HELP = {
    "orders": "members of wide@64 and both references in every set-up, half of them twice; "
    "about 80 minutes for 40 members",
    "modified": "modified in each exactly equal engine against eager original, 144 pixels; "
    "about 15 minutes",
    "search": "searches on eager and on ONNX Runtime, replayed on the table of trained VAEs; "
    "about 45 minutes to measure 144 members, 3 to replay",
    "alarms": "a model against itself, busy loops and the lane in ONNX Runtime and OpenVINO; "
    "about an hour",
    "loopback": "ten members of wide@64 and both references here and on a target that is this "
    "machine (nas target add), in turns; about 5 minutes",
    "summary": "print the tables of what is measured",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    asked = _parser().parse_args(arguments)
    wait_passively()
    try:
        _run(asked)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deployment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in HELP.items():
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--out", type=Path, default=OUT, help="folder of the rows (%(default)s)")
        if name in ("orders", "modified", "search", "loopback"):
            one.add_argument(
                "--again", action="store_true", help="repeat contended and failed ones"
            )
    options = commands.choices
    options["orders"].add_argument("--count", type=int, default=40, help="members (%(default)s)")
    options["search"].add_argument("--count", type=int, help="members; default: all 144")
    options["alarms"].add_argument(
        "--count", type=int, default=100,
        help="comparisons with itself in each set-up (%(default)s), and a fifth of it of the rest",
    )  # fmt: skip
    options["loopback"].add_argument("--target", required=True, help="its name in nas target list")
    options["loopback"].add_argument("--count", type=int, default=10, help="members (%(default)s)")
    for name in ("search", "summary"):
        options[name].add_argument("--seeds", type=int, default=20, help="%(default)s")
        options[name].add_argument("--trials", type=int, default=30, help="%(default)s")
    return parser


def _run(asked: argparse.Namespace) -> None:
    from benchmarks.deployment import alarms, loopback, modified, orders, searching
    from benchmarks.deployment.rows import require_same_environment
    from nas.artefacts import folder_or_refuse
    from profiling.allocator import tune_allocator

    if asked.command == "summary":
        print("\n".join(_summary(asked)))
        return
    tune_allocator()
    folder_or_refuse(asked.out)
    require_same_environment(asked.out)
    if asked.command == "orders":
        orders.orders(asked.out, asked.count, asked.again)
    elif asked.command == "modified":
        modified.modified(asked.out, asked.again)
    elif asked.command == "search":
        searching.measure(asked.out, asked.again, asked.count)
        print("\n".join(searching.table_of(asked.out, asked.seeds, asked.trials)))
    elif asked.command == "loopback":
        loopback.loopback(asked.out, asked.target, asked.count, asked.again)
    else:
        fifth = max(1, asked.count // 5)
        alarms.alarms(asked.out, alarms.Counts(asked.count, fifth, fifth))


def _summary(asked: argparse.Namespace) -> list[str]:
    from benchmarks.deployment import alarms, loopback, modified, searching
    from benchmarks.deployment.summary import summary

    there = {path.stem for path in asked.out.glob("*.csv")}
    lines: list[str] = []
    if "orders" in there:
        lines += [*summary(asked.out), ""]
    if "modified" in there:
        lines += [*modified.verdicts(asked.out), ""]
    if "search" in there:
        try:
            lines += [*searching.table_of(asked.out, asked.seeds, asked.trials), ""]
        except UserError as error:  # it is not complete yet
            lines += [str(error), ""]
    if "alarms" in there:
        lines += [f"| {' | '.join(one)} |" for one in alarms.lines(asked.out)]
    if "loopback" in there:
        lines += loopback.lines(asked.out)
    if not there:
        raise UserError(f"{asked.out}: nothing is measured there; run orders first")
    return lines


if __name__ == "__main__":
    sys.exit(main())
