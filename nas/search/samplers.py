"""Every sampler by name, and how to make those of Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

GENERATION = 16
"""Candidates per generation of the genetic samplers: a study is tens to hundreds of trials."""


@dataclass(frozen=True)
class SamplerKind:
    """How to make a sampler, and whether it wants every axis in every trial.

    Genetic and quasi-random samplers work on the axes that all trials share: on a conditional space
    they would search hardly any. With `all_axes` the inactive axes are sampled as well and have no
    effect. TPE models each group of jointly active axes by itself and needs no such help. A
    `reseeded` sampler is made anew for each proposal; a sequence has to go on instead.
    """

    make: Callable[[int], BaseSampler]
    all_axes: bool
    explanation: str
    reseeded: bool = True


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(
        seed=seed, multivariate=True, group=True, n_startup_trials=10, constant_liar=True
    )


def _qmc(seed: int) -> BaseSampler:
    return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


SAMPLERS: dict[str, SamplerKind | None] = {
    "pareto": None,
    "tpe": SamplerKind(_tpe, False, "tree-structured Parzen estimator, multivariate and grouped"),
    "nsga2": SamplerKind(
        lambda seed: NSGAIISampler(seed=seed, population_size=GENERATION),
        True,
        "genetic, non-dominated sorting and crowding",
    ),
    "nsga3": SamplerKind(
        lambda seed: NSGAIIISampler(seed=seed, population_size=GENERATION),
        True,
        "genetic, non-dominated sorting and reference directions",
    ),
    "random": SamplerKind(lambda seed: RandomSampler(seed=seed), False, "independent draws"),
    "qmc": SamplerKind(_qmc, True, "quasi-random Sobol sequence over the ordered axes", False),
    "enumerate": None,
}
"""Sampler names, and how to make those of Optuna. `pareto` is ours (`nas.search.pareto`);
`enumerate` walks the whole space in shuffled order and needs no model."""


def make_sampler(kind: SamplerKind, seed: int) -> BaseSampler:
    """Return a new Optuna sampler."""
    with quiet_optuna():
        return kind.make(seed)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own log lines and notes on experimental features off the user's screen."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
