"""Kill processes of studies at chosen and random moments, and check that nothing is lost.

    python -m benchmarks.faults --kills 50 --storage journal --runner local --out faults

`--storage postgres` starts a private server, which is restarted at random; the address of another
database works too. Every study leaves a JSON file in `--out`; an interrupted run continues with the
next study.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

import click
import optuna

from benchmarks.faults.siege import Plan, Siege, undisturbed
from benchmarks.postgres import Server, private_server
from studies.storage.addresses import absolute


@click.command(help=__doc__)
@click.option("--kills", default=50, show_default=True)
@click.option("--each", default=8, show_default=True, help="Maximum number of kills of one study.")
@click.option("--trials", default=6, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--storage", default="journal", show_default=True, help="journal, postgres, or an address."
)
@click.option("--runner", default="local", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("faults"), show_default=True)
def main(
    kills: int, each: int, trials: int, seed: int, storage: str, runner: str, out: Path
) -> None:
    """Kill processes of one study after another until there were `kills` kills.

    Studies have one and two workers alternately, and in a database one and two drivers; every third
    study measures latency.
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    golden = undisturbed(Plan("undisturbed", 0, 0, trials=trials), out)
    done: list[dict[str, Any]] = []
    with _served(storage) as (address, server):
        for number in count():
            if sum(one["kills"] for one in done) >= kills:
                break
            plan = Plan(
                f"siege-{seed}-{number}",
                each,
                seed + number,
                storage=address,
                runner=runner,
                workers=2 - number % 2,
                drivers=1 + (number // 2 + 1) % 2 if address != "journal" else 1,
                trials=trials,
                measure=number % 3 == 2,
            )
            path = out / f"{plan.name}.json"
            if not path.is_file():
                _clear(out, plan)
                outcome = Siege(plan, out, golden, server).run()
                path.write_text(json.dumps(outcome.to_dict(), indent=1))
            done.append(json.loads(path.read_text()))
            click.echo(_row(done[-1]))
    _conclude(done)


@contextmanager
def _served(storage: str) -> Iterator[tuple[str, Server | None]]:
    """Yield the storage's address, and its server if it is a private one."""
    if storage != "postgres":
        yield storage, None
        return
    with private_server() as server:
        yield server.database(), server


def _clear(out: Path, plan: Plan) -> None:
    """Remove what is left of a study whose test was interrupted."""
    shutil.rmtree(out / plan.name, ignore_errors=True)
    (out / f"{plan.name}.log").unlink(missing_ok=True)
    if not plan.journal:
        address = absolute(plan.storage, out)
        if plan.name in optuna.get_all_study_names(address):
            optuna.delete_study(study_name=plan.name, storage=address)


def _row(one: dict[str, Any]) -> str:
    kinds = Counter(kind for kind, _ in one["hits"])
    return (
        f"{one['plan']['name']}: drivers {one['plan']['drivers']}, "
        f"workers {one['plan']['workers']}, kills {one['kills']} "
        f"({', '.join(f'{kind} {n}' for kind, n in kinds.items())}), restarts {one['restarts']}, "
        f"checkpoints damaged {one['damaged_checkpoints']}, lines torn {one['torn_lines']}, "
        f"orphans gone in {one['longest_orphan_s']:.2f} s, equal trials {one['compared']}, "
        f"given up {len(one['failed'])}"
    )


def _conclude(done: list[dict[str, Any]]) -> None:
    hits = list(chain.from_iterable(one["hits"] for one in done))
    click.echo(f"\n{len(done)} studies, {sum(one['kills'] for one in done)} kills")
    for moment, number in Counter(moment for _, moment in hits).most_common():
        click.echo(f"  {moment:24} {number}")
    for kind, number in Counter(kind for kind, _ in hits).most_common():
        click.echo(f"  {kind:24} {number}")
    click.echo("lost 0, counted twice 0, left running 0, different from undisturbed 0")


if __name__ == "__main__":
    main()
