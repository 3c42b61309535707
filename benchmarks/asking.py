"""Seconds of one proposal: `pareto` and Optuna's grouped TPE, in turns, on the same history.

`python -m benchmarks.asking [--trials 300 1000] [--proposals 20]`: space `wide`, the objectives of
a study (loss, parameters, MACs, latency), of which `pareto` knows parameters and MACs beforehand.
The history is a search by NSGA-II with made-up values. Proposal and report count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.scale_parts import MadeUp
from nas.evaluate import CandidateFailed
from nas.objectives import DEFAULT_OBJECTIVES
from nas.predict.known_costs import known_costs
from nas.search import Proposer, make_proposer
from search_spaces.space import SearchSpace

SAMPLERS = ("pareto", "tpe")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the median time of a proposal at each number of trials."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--proposals", type=int, default=20, help="timed at each size")
    parser.add_argument("--space", default="wide")
    options = parser.parse_args(arguments)
    space = SearchSpace.load(options.space)
    proposers = {name: _proposer(space, name) for name in SAMPLERS}
    history = _proposer(space, "nsga2")
    for trials in sorted(options.trials):
        while history.seen < trials:
            _step(history, list(proposers.values()))
        spent_s: dict[str, list[float]] = {name: [] for name in SAMPLERS}
        for _ in range(options.proposals):
            for name, proposer in proposers.items():
                others = [one for one in (*proposers.values(), history) if one is not proposer]
                spent_s[name].append(_step(proposer, others))
        own_s, tpe_s = (median(spent_s[name]) for name in SAMPLERS)
        print(f"{trials} trials: pareto {own_s:.3f} s (longest {max(spent_s['pareto']):.3f}), "
              f"tpe {tpe_s:.3f} s, {own_s / tpe_s:.2f} times", flush=True)  # fmt: skip


def _proposer(space: SearchSpace, sampler: str) -> Proposer:
    costs = known_costs(DEFAULT_OBJECTIVES) if sampler == "pareto" else None
    return make_proposer(space, sampler, DEFAULT_OBJECTIVES, 0, costs)


def _step(proposer: Proposer, others: Sequence[Proposer]) -> float:
    """Let one sampler propose; report the result to all; return the seconds of the first."""
    start = time.perf_counter()
    proposal = proposer.propose()
    spent_s = time.perf_counter() - start
    assert proposal is not None
    values = _values(proposal.architecture)
    start = time.perf_counter()
    proposer.tell(proposal.architecture.digest, values)
    spent_s += time.perf_counter() - start
    for other in others:
        other.register(proposal.assignment, proposal.architecture)
        other.tell(proposal.architecture.digest, values)
    return spent_s


def _values(architecture: Any) -> list[float] | None:
    """Return made-up values of the objectives; None for one that fails."""
    try:
        *_, found = MadeUp(epochs=1)(architecture)
    except CandidateFailed:
        return None
    return [found.objectives[name] for name in DEFAULT_OBJECTIVES]


if __name__ == "__main__":
    main()
