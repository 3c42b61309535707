"""Give `nas` malformed inputs, and check that each is refused in one clear message.

    python -m benchmarks.fuzz --inputs 2000 --seed 0 --minutes 30

Every command, option and kind of file has its malformed values; `--inputs` of them are drawn, of
every kind at least one. A refusal has exit code 2, at most three short lines and no traceback,
changes no file and leaves no process. The result is a JSON file in `--out`.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.fuzz.cases import Case, option_cases
from benchmarks.fuzz.child import adopt_orphans, forked, preload, run_nas
from benchmarks.fuzz.files import file_cases
from benchmarks.fuzz.judge import Verdict, judge
from benchmarks.fuzz.scratch import Scratch, write_predictor

Judged = tuple[Case, Verdict]


@click.command(help=__doc__)
@click.option("--inputs", default=2000, show_default=True, help="Number of inputs.")
@click.option("--seed", default=0, show_default=True)
@click.option("--minutes", default=30.0, show_default=True, help="Time limit.")
@click.option("--only", default="", help="Only kinds in which this regular expression is found.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/fuzz"),
    show_default=True,
)  # fmt: skip
def main(inputs: int, seed: int, minutes: float, only: str, out: Path) -> None:
    """Judge drawn cases and print a table of what is wrong, by kind."""
    stop = time.monotonic() + 60 * minutes
    done: list[Judged] = []
    # No TemporaryDirectory: every forked child would remove it at its own end.
    folder = Path(tempfile.mkdtemp(prefix="nas-fuzz-"))
    try:
        scratch = prepared(folder)
        cases = drawn(all_cases(scratch, seed), inputs, seed, only)
        for case in cases:
            if time.monotonic() > stop:
                break
            done.append((case, judge(case, scratch)))
            if len(done) % 100 == 0:
                click.echo(f"{len(done)} of {len(cases)}: {_faulty(done)} faulty", err=True)
    finally:
        shutil.rmtree(folder)
    _print(done)
    _write(done, seed, len(cases), out)
    sys.exit(bool(_faulty(done)))


def prepared(folder: Path) -> Scratch:
    """Return a scratch folder with the valid examples, and import what the commands import."""
    preload()
    adopt_orphans()
    scratch = Scratch(folder)

    def run(arguments: Sequence[str]) -> None:
        ended = run_nas(arguments, scratch.work, scratch.variables, cpu_s=300, wall_s=600)
        if ended.code != 0:
            raise RuntimeError(f"{arguments}: {ended}")

    def predictor() -> None:
        ended = forked(write_predictor, scratch.work, scratch.variables, cpu_s=60, wall_s=120)
        if ended.code != 0:
            raise RuntimeError(f"predictor: {ended}")

    scratch.prepare(run, predictor)
    return scratch


def all_cases(scratch: Scratch, seed: int) -> list[Case]:
    """Return all cases; the random ones follow from the seed."""
    return [*option_cases(), *file_cases(scratch.pristine, random.Random(seed))]


def drawn(cases: Iterable[Case], count: int, seed: int, only: str = "") -> list[Case]:
    """Return `count` cases in random order: one of each kind, the others drawn uniformly."""
    shuffled = [case for case in cases if re.search(only, case.kind)]
    random.Random(seed).shuffle(shuffled)
    firsts = list({case.kind: case for case in shuffled}.values())
    chosen = {id(case) for case in firsts}
    others = [case for case in shuffled if id(case) not in chosen]
    return (firsts + others)[:count]


def _faulty(done: Sequence[Judged]) -> int:
    return sum(bool(verdict.faults) for _, verdict in done)


def _print(done: Sequence[Judged]) -> None:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for case, verdict in done:
        table[case.kind].update(["inputs", *verdict.faults])
    for kind, counts in sorted(table.items()):
        if faults := {name: n for name, n in counts.items() if name != "inputs"}:
            listed = ", ".join(f"{name} {n}" for name, n in faults.items())
            click.echo(f"{kind:44} {counts['inputs']:4} inputs: {listed}")
    accepted = sum(verdict.accepted for _, verdict in done)
    click.echo(f"{len(done)} inputs, {accepted} accepted, {_faulty(done)} faulty")


def _write(done: Sequence[Judged], seed: int, planned: int, out: Path) -> None:
    faults = [_record(case, verdict) for case, verdict in done if verdict.faults]
    result = {
        "seed": seed,
        "planned": planned,
        "inputs": len(done),
        "kinds": len({case.kind for case, _ in done}),
        "accepted": sum(verdict.accepted for _, verdict in done),
        "by_fault": Counter(fault for _, verdict in done for fault in verdict.faults),
        "faulty": faults,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"fuzz-{seed}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    click.echo(f"results: {path}")


def _record(case: Case, verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": case.kind,
        "arguments": [word if len(word) < 200 else f"{word[:60]}... ({len(word)} characters)"
                      for word in case.arguments],
        "damage": [f"{one.path}: {one.how}" for one in case.damage],
        "faults": verdict.faults,
        "errors": verdict.errors,
    }  # fmt: skip


if __name__ == "__main__":
    main()
