"""Searches in `wide`, the largest space, on a loss that is a formula: no table could hold it.

`python -m benchmarks.analytic [--samplers NAME ...] [--seeds 10] [--trials 300] [--out FOLDER]`.
Objectives: the loss below, which searches observe with a seed noise of 1 %; parameters; and a
latency by formula. `pareto` knows only the parameters beforehand, as in a study. A search that has
a result file is not repeated. Searches are judged by the loss without noise: the hypervolume of all
that a search has evaluated, relative to that of all searches together, on the whole front and up to
the median loss of the joint front; and the lowest loss.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.objectives import nondominated
from nas.predict.known_costs import known_costs
from nas.predict.operations import exact_costs, operations
from nas.search import make_proposer
from profiling.files import write_whole
from search_spaces.architecture import Architecture, Stage
from search_spaces.space import SearchSpace

OBJECTIVES = ("reconstruction_loss", "params", "latency_ms")
SAMPLERS = ("pareto", "pareto-accurate", "tpe", "nsga2", "nsga3", "random")
NOISE = 0.01
"""Standard deviation of an observed loss, relative to the loss."""

MARGIN = 0.1
"""Distance of the reference point from the joint front, relative to its range."""

OUT = Path("benchmarks/results/analytic")

_Points = npt.NDArray[np.float64]


def loss(architecture: Architecture) -> float:
    """Return the made-up loss of an architecture, without noise.

    Losses fall with capacity by exponentials, as in trained models, but with interactions: the
    weakest stage of a part counts most; what depthwise convolutions lose depends on the block and
    the activation; a large latent helps only behind a head with enough features, and asks for
    fewer stages; encoder and decoder should be of equal strength. Half a per cent belongs to the
    architecture alone.
    """
    encoder, decoder = architecture.encoder, architecture.decoder
    activation, latent = architecture.activation, architecture.latent_size
    coding = _strength(encoder.stages, activation) + 0.15 * math.log2(encoder.stem_width or 4)
    drawing = _strength(decoder.stages, activation) + 0.1 * math.log2(decoder.seed_width)
    features = {"flatten": 4, "squeeze": (encoder.head_width or 0) / 24, "global_average": 0.75}
    carried = min(latent, 48 * features[encoder.head] * 2 ** (coding / 4 - 1))
    told = 0.55 / carried**0.35 + 0.012 * abs(len(encoder.stages) - 6 + math.log2(latent) / 4)
    drawn = 0.5 * math.exp(-0.32 * drawing)
    coded = 0.2 * math.exp(-0.28 * coding)
    apart = 0.006 * (coding - drawing) ** 2
    kind = 0.01 * (decoder.operator == "transposed") * (1 if activation == "relu" else -0.5)
    own = int(architecture.digest, 16) % 10_007 / 10_007 - 0.5
    return float((0.2 + told + drawn + coded + apart + kind) * (1 + 0.01 * own))


def _strength(stages: Sequence[Stage], activation: str) -> float:
    """Return the strength of a part: a mean over its stages in which weak ones count most."""
    each = []
    for stage in stages:
        depth = stage.layers * ((stage.growth_rate or 0) / 20 if stage.block == "dense" else 1)
        one = math.log2(stage.width) + 0.8 * math.log2(1 + depth)
        if stage.convolution != "standard":
            one -= 0.9 if stage.block == "plain" else 0.3
            one += 0.3 * (activation in ("silu", "gelu"))
            one -= 0.2 * (stage.convolution == "pointwise_first")
        each.append(one)
    weak = -math.log(sum(math.exp(-one) for one in each) / len(each))
    smooth = {"silu": 0.2, "gelu": 0.15, "elu": 0.1, "leaky_relu": 0.0, "relu": -0.1}[activation]
    return 0.7 * weak + 0.3 * sum(each) / len(each) + smooth * (len(stages) - 3)


def latency_ms(architecture: Architecture) -> float:
    """Return the made-up latency: each operation is bound by its launch, arithmetic or memory."""
    total = 0.0
    for one in operations(architecture):
        arithmetic = one.macs / (4e7 if one.groups > 1 else 2e8)
        total += max(0.01 * one.launches, arithmetic, one.bytes_moved() / 1e7)
    return total


@dataclass(frozen=True)
class Search:
    """One search."""

    sampler: str
    seed: int
    trials: int

    def file(self, out: Path) -> Path:
        """Return the path of its result."""
        return out / f"{self.sampler}-{self.trials}-{self.seed}.json"


def run(search: Search, out: Path) -> None:
    """Search, and write the values without noise of all that was evaluated."""
    space, noise = SearchSpace.load("wide"), np.random.default_rng([search.seed, 1])
    sampler, _, focus = search.sampler.partition("-")
    costs = known_costs(OBJECTIVES) if sampler == "pareto" else None
    options: dict[str, Any] = {"focus": focus} if focus else {}
    proposer = make_proposer(space, sampler, OBJECTIVES, search.seed, costs, **options)
    found = []
    for _ in range(search.trials):
        proposal = proposer.propose()
        assert proposal is not None
        one = proposal.architecture
        values = [loss(one), float(exact_costs([one])["params"][0]), latency_ms(one)]
        found.append(values)
        observed = values[0] * (1 + NOISE * noise.standard_normal())
        proposer.tell(one.digest, [observed, *values[1:]])
    rows = [[float(f"{value:.6g}") for value in one] for one in found]
    write_whole(search.file(out), json.dumps(rows).encode())


def points_of(path: Path) -> _Points:
    """Return the points of a result (trials, objectives): the loss, and logarithms of costs."""
    values = np.array(json.loads(path.read_text(encoding="utf-8")), dtype=np.float64)
    values[:, 1:] = np.log(values[:, 1:])
    return values


def judged(results: dict[Search, _Points]) -> dict[Search, tuple[float, float, float]]:
    """Return the regret on the whole front and on its accurate half, and the lowest loss.

    A regret is the share of the joint hypervolume that a search lacks. The reference point is
    `MARGIN` beyond the joint front, so that its ends count.
    """
    import moocore

    everything = np.vstack(list(results.values()))
    front = everything[nondominated(everything)]
    low, high = front.min(axis=0), front.max(axis=0)
    accurate = np.append(np.median(front[:, 0]), high[1:])
    ends = {
        name: low + (1 + MARGIN) * (end - low)
        for name, end in (("whole", high), ("accurate", accurate))
    }

    def volume(points: _Points, end: _Points) -> float:
        inside = points[(points < end).all(axis=1)]
        scaled = (inside - low) / (end - low)
        return float(moocore.hypervolume(scaled, ref=np.ones(len(low)))) if len(inside) else 0.0

    full = {name: volume(front, end) for name, end in ends.items()}
    return {
        search: (
            1 - volume(points, ends["whole"]) / full["whole"],
            1 - volume(points, ends["accurate"]) / full["accurate"],
            float(points[:, 0].min()),
        )
        for search, points in results.items()
    }


def table(results: dict[Search, _Points]) -> list[str]:
    """Return the rows of a Markdown table: medians over seeds with quartiles."""
    found, samplers = judged(results), dict.fromkeys(search.sampler for search in results)
    lines = ["| sampler | seeds | regret | accurate half | lowest loss |", "|---|---|---|---|---|"]
    for sampler in samplers:
        columns = np.array([value for search, value in found.items() if search.sampler == sampler])
        cells = [
            f"{median(column):.4f} ({np.quantile(column, 0.25):.4f} to "
            f"{np.quantile(column, 0.75):.4f})"
            for column in columns.T
        ]
        lines.append(f"| {sampler} | {len(columns)} | {' | '.join(cells)} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the searches that have no result; print the table of all results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [
        Search(sampler, seed, options.trials)
        for seed in range(options.seeds)
        for sampler in options.samplers
    ]
    missing = [search for search in wanted if not search.file(options.out).exists()]
    with ProcessPoolExecutor(options.processes) as pool:
        running = {pool.submit(run, search, options.out): search for search in missing}
        for done, future in enumerate(as_completed(running), start=1):
            future.result()
            print(f"{done}/{len(missing)}: {running[future]}", flush=True)
    results = {search: points_of(search.file(options.out)) for search in wanted}
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
