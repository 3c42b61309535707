"""Does a search on the latency that will be paid find better models than one on eager PyTorch?

The losses are those of the table of trained VAEs (`studies.bench.vae`). The latencies of a part of
its members are measured in eager PyTorch once and in ONNX Runtime twice. Searches by our sampler
are replayed with many seeds on the loss and one of the clocks. The models that a search would
deliver are its Pareto front by its own clock. Both fronts are judged by their losses and the second
measurement in ONNX Runtime, which neither search has seen: so no search has an advantage from
measurements that were low by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.deployment.orders import Job, Meters
from benchmarks.deployment.rows import MEASURED, Rows, fill
from nas.setups import SetUp
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.bench.contenders import CONTENDERS
from studies.bench.tables import Table
from studies.bench.vae import VaeTable, load_vae_table

KEY = ("setup", "sweep", "digest")
SAMPLER = "pareto-no-costs"

LIMITS = {"max_s": 2.0, "attempts": 2}
CLOCKS = {
    "eager": SetUp.model_validate(LIMITS),
    "onnxruntime": SetUp.model_validate({**LIMITS, "backend": "onnxruntime"}),
}
SWEEPS = (("eager", 1), ("onnxruntime", 1), ("onnxruntime", 2))
JUDGE = ("onnxruntime", 2)
LOSSES = (0.25, 0.5, 0.75)
"""Quantiles of the losses on the exact front at which latencies are compared."""


def part_of_table() -> VaeTable:
    """Return the 144 members of the table with a latent of 128 and two of the decoder's widths."""
    whole = load_vae_table()
    data = whole.space.with_fixed(latent_size=128).to_dict()
    data["axes"]["decoder.base_width"]["choices"] = [4, 16]
    space = SearchSpace.from_dict({**data, "name": "part of table"})
    members = list(dict.fromkeys(space.architecture(one).digest for one in space.enumerate()))
    order = np.random.default_rng(0).permutation(len(members))  # the first few are typical
    return VaeTable(space, whole.about, {members[n]: whole.records[members[n]] for n in order})


def rows_of(folder: Path) -> Rows:
    """Return the rows of a folder."""
    return Rows(folder / "search.csv", KEY, (*MEASURED, "failure"))


def measure(folder: Path, again: bool, limit: int | None = None) -> None:
    """Measure what the folder lacks."""
    records = list(part_of_table().records.items())[:limit]
    members = {key: Architecture.from_dict(json.loads(one["architecture"])) for key, one in records}
    jobs = (
        ((setup, sweep, digest), Job(setup, architecture))
        for setup, sweep in SWEEPS
        for digest, architecture in members.items()
    )
    fill(rows_of(folder), jobs, Meters(CLOCKS).measure, "measured", again=again)


def tables(folder: Path) -> dict[tuple[str, int], Table]:
    """Return a table of loss and latency for each sweep, over the members that ran in all of them.

    The latency is the ratio to `original` in the same set-up.

    Raises:
        UserError: a member has not been tried in every sweep.
    """
    base, rows = part_of_table().table(), rows_of(folder)
    found: dict[tuple[str, int], dict[str, float]] = {sweep: {} for sweep in SWEEPS}
    tried = [key for key in base.entries if all(rows.get(*sweep, key) for sweep in SWEEPS)]
    if len(tried) < len(base.entries):
        raise UserError(
            f"{folder}: {len(tried)} of {len(base.entries)} members are measured in every sweep; "
            "run search without --count"
        )
    for one in rows.all:
        if one["ratio"]:
            found[one["setup"], int(one["sweep"])][one["digest"]] = float(one["ratio"])
    common = [key for key in base.entries if all(key in ratios for ratios in found.values())]
    return {sweep: _with_latency(base, common, ratios) for sweep, ratios in found.items()}


def _with_latency(base: Table, members: Sequence[str], ratios: Mapping[str, float]) -> Table:
    entries = {key: replace(base.entries[key], costs=(ratios[key],)) for key in members}
    return replace(base, objectives=(base.objectives[0], "latency_ms"), entries=entries)


def search(table: Table, seed: int, trials: int) -> list[str]:
    """Search a table; return the digests of the Pareto front that it has found."""
    asker, tried = CONTENDERS[SAMPLER].asker(table, seed), dict[str, list[float]]()
    for _ in range(trials):
        proposal = asker.propose()
        if proposal is None:
            break
        digest = proposal.architecture.digest
        entry = table.entries.get(digest)  # a set-up cannot run the others
        asker.tell(digest, entry.values if entry else None, None)
        if entry:
            tried[digest] = entry.values
    return front(tried)


def front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the names of the points that no other point dominates."""
    import moocore

    values = np.asarray(list(points.values()), dtype=np.float64)
    kept = moocore.is_nondominated(values, keep_weakly=True)
    return [name for name, keep in zip(points, kept, strict=True) if keep]


@dataclass(frozen=True)
class Outcome:
    """What a search would deliver, judged by the clock that will be paid.

    Attributes:
        regret: Share of the exact front's hypervolume that its models lack.
        latencies: Lowest latency among its models up to each of some losses; infinite for none.
    """

    regret: float
    latencies: tuple[float, ...]


def judged(delivered: Sequence[str], judge: Table) -> Outcome:
    """Judge models by their losses and the latencies of another measurement."""
    points = np.asarray([judge.entries[key].values for key in delivered])
    best = front({key: one.values for key, one in judge.entries.items()})
    limits = np.quantile([judge.entries[key].losses[-1] for key in best], LOSSES)
    lowest = (points[points[:, 0] <= limit, 1].min(initial=np.inf) for limit in limits)
    return Outcome(judge.volume.regret(points), tuple(map(float, lowest)))


def outcomes(folder: Path, seeds: int, trials: int) -> dict[str, list[Outcome]]:
    """Replay the searches on each clock, and judge what they deliver."""
    known = tables(folder)
    judge = known[JUDGE]
    return {
        clock: [judged(search(known[clock, 1], seed, trials), judge) for seed in range(seeds)]
        for clock in CLOCKS
    }


def _over(some: Sequence[Outcome], base: Sequence[Outcome]) -> list[float]:
    """Return the median over seeds of the ratio of latencies, for each loss.

    Where neither search has a model up to a loss, they are equal.
    """
    ours, theirs = (np.asarray([one.latencies for one in of]) for of in (some, base))
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(ours) & np.isinf(theirs), 1.0, ours / theirs)
    found: list[float] = np.median(ratios, axis=0).tolist()
    return found


def table_of(folder: Path, seeds: int, trials: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: both searches, and the front of each whole clock."""
    known = tables(folder)
    judge = known[JUDGE]
    yield f"{len(judge.entries)} members, {trials} trials, {seeds} seeds; judged in ONNX Runtime:"
    yield ""
    yield "| searched on | regret (quartiles) | regret with all members known | latency at a loss |"
    yield "|---|---|---|---|"
    found = outcomes(folder, seeds, trials)
    for clock, some in found.items():
        low, middle, high = np.quantile([one.regret for one in some], (0.25, 0.5, 0.75))
        own = known[clock, 1]
        exact = judged(front({key: one.values for key, one in own.entries.items()}), judge)
        shown = ", ".join(f"{one:.2f}" for one in _over(some, found["eager"]))
        yield (
            f"| {clock} | {middle:.4f} ({low:.4f} to {high:.4f}) | {exact.regret:.4f} | {shown} |"
        )
    better = sum(a.regret < b.regret for a, b in zip(*reversed(found.values()), strict=True))
    yield ""
    yield f"searching on ONNX Runtime has the lower regret with {better} of {seeds} seeds"
    yield (
        "latency at a loss: lowest latency of the delivered models up to the loss at each quartile "
        "of the exact front, over that of the search on eager with the same seed, median"
    )
