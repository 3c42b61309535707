"""Do short trainings pay in a search? Lower budgets and a surrogate of two fidelities.

`python -m benchmarks.fidelity [--seeds 20] [--epochs 900]`: searches of the table of trained VAEs
by `pareto`, one candidate at a time, until they have spent a budget of epochs. Three ways:

- *full*: every candidate is trained to the end.
- *low, then the front*: candidates are trained for a few epochs and searched by that loss. Those
  that are the front by that loss are trained to the end, and an ordinary search goes on from these.
- *two fidelities*: as many candidates are trained for a few epochs, searched by that loss. Then a
  search with full trainings begins, whose surrogate learns from both kinds of losses, with the
  fidelity as an input. This is what `--warm-start` does with a study of fewer epochs.

All epochs are charged: a full training begins anew. Judged by the front of the full trainings,
which is all that a study may report.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import numpy as np

from nas.objectives import nondominated
from nas.search.interfaces import Array
from nas.search.proposer import Proposer
from studies.bench.contenders import contender
from studies.bench.shipped import load_table
from studies.bench.tables import Table

SHORT_EPOCHS, SHORT_TRAININGS = (1, 3), (20, 50)
NEAR = 0.01


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the epochs to a regret of 1 % and the regret at the end of each way to search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=900)
    options = parser.parse_args(arguments)
    ways = [("full", 0, 0)]
    for way in ("low, then the front", "two fidelities"):
        ways += [(way, short, count) for short in SHORT_EPOCHS for count in SHORT_TRAININGS]
    print("| way | short trainings | epochs to 99 % | seeds there | regret | accurate half |")
    print("|---|---|---|---|---|---|")
    with ProcessPoolExecutor(2) as pool:
        for way, short, count in ways:
            jobs = [(way, short, count, seed, options.epochs) for seed in range(options.seeds)]
            reached, regrets, accurate = zip(*pool.map(_searched, jobs), strict=True)
            there = sum(epochs <= options.epochs for epochs in reached)
            middle = median(reached)
            epochs = f"{middle:.0f}" if middle <= options.epochs else "not reached"
            print(f"| {way} | {f'{count} of {short} epochs' if count else '-'} | {epochs} "
                  f"| {there}/{len(jobs)} | {median(regrets):.4f} | {median(accurate):.4f} |",
                  flush=True)  # fmt: skip


def _searched(job: tuple[str, int, int, int, int]) -> tuple[float, float, float]:
    """Return the epochs to a regret of 1 % (inf if more), and both regrets at the end."""
    way, short, count, seed, budget = job
    table = load_table("vae")
    spent = 0
    found: list[list[float]] = []
    reached = np.inf
    for digest, epochs in _trainings(table, way, short, count, seed):
        spent += epochs
        if spent > budget:
            break
        if epochs == table.epochs:
            found.append(table.entries[digest].values)
            if reached == np.inf and table.volume.quality(np.array(found)).regret <= NEAR:
                reached = spent
    quality = table.volume.quality(np.array(found))
    return reached, quality.regret, quality.accurate


def _trainings(
    table: Table, way: str, short: int, count: int, seed: int
) -> Iterator[tuple[str, int]]:
    """Yield which architecture is trained next, and up to which epoch."""
    short_asker, tried = _asker(table, seed), list[str]()
    for _ in range(count):
        digest = _next(short_asker)
        tried.append(digest)
        yield digest, short
        short_asker.tell(digest, _values(table, digest, short))
    asker = _asker(table, seed + 1000)
    if way == "two fidelities":
        entries = [table.entries[digest] for digest in tried]
        assignments = [dict(entry.assignment) for entry in entries]
        members = [table.space.architecture(assignment) for assignment in assignments]
        asker.warm(assignments, members, [_values(table, digest, short) for digest in tried])
    elif tried:
        points: Array = np.array([_values(table, digest, short) for digest in tried])
        for place in np.flatnonzero(nondominated(points)):
            entry = table.entries[tried[place]]
            yield entry.digest, table.epochs
            assignment = dict(entry.assignment)
            asker.register(assignment, table.space.architecture(assignment))
            asker.tell(entry.digest, entry.values)
    while True:
        digest = _next(asker)
        yield digest, table.epochs
        asker.tell(digest, table.entries[digest].values)


def _asker(table: Table, seed: int) -> Proposer:
    asker = contender("pareto").asker(table, seed)
    assert isinstance(asker, Proposer)
    return asker


def _next(asker: Proposer) -> str:
    proposal = asker.propose()
    assert proposal is not None
    digest: str = proposal.architecture.digest
    return digest


def _values(table: Table, digest: str, epochs: int) -> list[float]:
    entry = table.entries[digest]
    return [entry.losses[epochs - 1], *entry.costs]


if __name__ == "__main__":
    main()
