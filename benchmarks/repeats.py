"""Is training an architecture again worth more than training a new one?

`python -m benchmarks.repeats [--noise 1 3] [--seeds 20] [--trials 100]`: searches of the table of
trained VAEs by `pareto`, of one budget. The last trainings of it are spent on new architectures, or
on those again that may belong to the front: by the losses observed, or by fitted ones; those with
the fewest trainings first. Losses of one architecture are averaged. The front so found is judged by
losses that the search did not see.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median

import numpy as np
import numpy.typing as npt

from nas.objectives import nondominated
from nas.search.axis_features import AxisFeatures
from nas.search.surrogate import smoothed
from studies.bench.contenders import contender
from studies.bench.shipped import load_table
from studies.bench.tables import Table

REPEATS = (0, 10, 20, 40)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the regret for each number of repeated trainings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--noise", type=float, nargs="+", default=[1, 3], help="in per cent")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args(arguments)
    print("| noise | repeated | as observed | with the fitted front | accurate half |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(2) as pool:
        for noise in options.noise:
            for again in REPEATS:
                jobs = [(noise / 100, seed, options.trials, again) for seed in range(options.seeds)]
                columns = zip(*pool.map(_search, jobs), strict=True)
                cells = " | ".join(f"{median(column):.4f}" for column in columns)
                print(f"| {noise:g} % | {again} of {options.trials} | {cells} |", flush=True)


def _search(job: tuple[float, int, int, int]) -> tuple[float, float, float]:
    noise, seed, trials, again = job
    truth = load_table("vae")
    table, rng = truth.observed(noise, seed), np.random.default_rng([seed, 1])
    asker = contender("pareto").asker(table, seed)
    losses: dict[str, list[float]] = {}
    for _ in range(trials - again):
        proposal = asker.propose()
        assert proposal is not None
        digest = proposal.architecture.digest
        losses[digest] = [table.entries[digest].values[0]]
        asker.tell(digest, table.entries[digest].values, None)
    for _ in range(again):
        digests = list(losses)
        observed, fitted = _fronts(table, losses)
        candidates = [digests[place] for place in np.flatnonzero(observed | fitted)]
        digest = min(candidates, key=lambda one: len(losses[one]))
        losses[digest].append(
            truth.entries[digest].values[0] * np.exp(noise * rng.standard_normal())
        )
    observed, fitted = _fronts(table, losses)
    real = np.array([truth.entries[digest].values for digest in losses])
    both = truth.volume.quality(real[observed | fitted])
    return truth.volume.quality(real[observed]).regret, both.regret, both.accurate


def _fronts(
    table: Table, losses: dict[str, list[float]]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which architectures are the front by mean losses, and by losses fitted to these."""
    seen = [table.entries[digest] for digest in losses]
    means = [float(np.exp(np.log(each).mean())) for each in losses.values()]
    observed = np.array([[mean, *one.values[1:]] for mean, one in zip(means, seen, strict=True)])
    fitted = observed.copy()
    features = AxisFeatures(table.space)([one.assignment for one in seen])
    fitted[:, 0] = smoothed(features, observed[:, 0])
    return nondominated(observed), nondominated(fitted)


if __name__ == "__main__":
    main()
