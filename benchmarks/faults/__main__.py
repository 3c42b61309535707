"""Kill a study's processes, again and again, and count what is lost.

    python -m benchmarks.faults --kills 50 --storage journal --runner local --out faults

Every study leaves a JSON file in `--out`; a run that was stopped goes on with the next one.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain, count
from pathlib import Path
from typing import Any

import click

from benchmarks.faults.siege import Plan, Siege, undisturbed


@click.command(help=__doc__)
@click.option("--kills", default=50, show_default=True)
@click.option("--each", default=8, show_default=True, help="Most kills of one study.")
@click.option("--trials", default=6, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--storage", default="journal", show_default=True, help="Or an address.")
@click.option("--runner", default="local", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("faults"), show_default=True)
def main(
    kills: int, each: int, trials: int, seed: int, storage: str, runner: str, out: Path
) -> None:
    """Attack studies until there were `kills` kills.

    One and two workers take turns, and every third study measures latency.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {"storage": storage, "runner": runner, "trials": trials}
    golden = undisturbed(Plan("undisturbed", 0, 0, trials=trials), out)
    done: list[dict[str, Any]] = []
    for number in count():
        if sum(len(one["hits"]) for one in done) >= kills:
            break
        plan = Plan(
            f"siege-{seed}-{number}",
            each,
            seed + number,
            workers=2 - number % 2,
            measure=number % 3 == 2,
            **common,
        )
        path = out / f"{plan.name}.json"
        if not path.is_file():
            _clear(out, plan.name)
            path.write_text(json.dumps(Siege(plan, out, golden).run().to_dict(), indent=1))
        done.append(json.loads(path.read_text()))
        click.echo(_row(done[-1]))
    _conclude(done)


def _clear(out: Path, name: str) -> None:
    """Remove what a siege that was itself stopped had left of its study."""
    import shutil

    shutil.rmtree(out / name, ignore_errors=True)
    (out / f"{name}.log").unlink(missing_ok=True)


def _row(one: dict[str, Any]) -> str:
    kinds = Counter(kind for kind, _ in one["hits"])
    return (
        f"{one['plan']['name']}: workers {one['plan']['workers']}, kills {len(one['hits'])} "
        f"({', '.join(f'{kind} {n}' for kind, n in kinds.items())}), restarts {one['restarts']}, "
        f"checkpoints damaged {one['damaged_checkpoints']}, lines torn {one['torn_lines']}, "
        f"orphans gone in {one['longest_orphan_s']:.2f} s, equal trials {one['compared']}, "
        f"given up {len(one['failed'])}"
    )


def _conclude(done: list[dict[str, Any]]) -> None:
    hits = list(chain.from_iterable(one["hits"] for one in done))
    click.echo(f"\n{len(done)} studies, {len(hits)} kills")
    for moment, number in Counter(moment for _, moment in hits).most_common():
        click.echo(f"  {moment:24} {number}")
    for kind, number in Counter(kind for kind, _ in hits).most_common():
        click.echo(f"  {kind:24} {number}")
    click.echo("lost 0, counted twice 0, left running 0, different from undisturbed 0")


if __name__ == "__main__":
    main()
