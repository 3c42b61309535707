"""All samplers by name, and the construction of those of Optuna."""

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
    """The construction and the needs of an Optuna sampler.

    Attributes:
        make: Seed -> sampler.
        all_axes: Whether inactive axes are sampled as well, without effect. Genetic and
            quasi-random samplers need it, because they work only on the axes that all trials share,
            which are few in a conditional space. TPE models each group of jointly active axes
            separately.
        explanation: Description in a few words.
        reseeded: Whether a new sampler is made for each proposal. A quasi-random sequence must be
            continued instead.
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
"""Sampler name -> how to make it, for those of Optuna. `pareto` is that of `nas.search.pareto`;
`enumerate` proposes the whole space in shuffled order and needs no model."""


def make_sampler(kind: SamplerKind, seed: int) -> BaseSampler:
    """Return a new Optuna sampler."""
    with quiet_optuna():
        return kind.make(seed)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's log lines and its warnings about experimental features."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)
