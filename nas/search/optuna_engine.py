"""Optuna's samplers as an engine, each with a private Optuna study in memory."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from nas.search.interfaces import Space
from nas.search.samplers import SamplerKind, make_sampler, quiet_optuna
from search_spaces.axes import Assignment

PATIENCE = 10
"""Consecutive repetitions after which a sampler is taken to propose nothing new."""


class OptunaEngine:
    """An Optuna sampler on a private Optuna study in memory.

    The private study contains repeated proposals, as failed trials, and values of inactive axes.
    The stored study contains neither.
    """

    def __init__(self, space: Space, kind: SamplerKind, objectives: int, seed: int) -> None:
        self._space, self._kind = space, kind
        with quiet_optuna():
            self._study = optuna.create_study(
                directions=["minimize"] * objectives, sampler=make_sampler(kind, seed)
            )
        self._open: dict[str, Trial] = {}

    def propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        """Ask the sampler for an unseen candidate, at most `PATIENCE` times."""
        for repeats in range(PATIENCE):
            if self._kind.reseeded:
                # The seed follows from the number of networks seen, so that a resumed search
                # continues as if it had not been interrupted.
                self._study.sampler = make_sampler(self._kind, int(rng.integers(2**32)))
            trial = self._study.ask(self._space.distributions() if self._kind.all_axes else None)
            assignment = self._space.suggest(trial)
            if self._space.problem(assignment) is None:
                architecture = self._space.architecture(assignment)
                if architecture.digest not in seen:
                    self._open[architecture.digest] = trial
                    return assignment, architecture, repeats
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Enqueue this assignment and ask for it, so that the sampler learns from it."""
        params = self._space.to_optuna(assignment)
        distributions = self._space.distributions(assignment)
        if self._kind.all_axes:
            everything = self._space.distributions()
            drawn = self._space.to_optuna(self._space.sample(rng))
            params = {
                name: params.get(name, drawn.get(name, _first(distribution)))
                for name, distribution in everything.items()
            }
            distributions = everything
        with quiet_optuna():
            self._study.enqueue_trial(params)
        self._open[architecture.digest] = self._study.ask(fixed_distributions=distributions)

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Report values to the sampler; without values, the trial failed or exceeded a limit."""
        trial = self._open.pop(digest, None)
        if trial is None:
            return
        for key, violation in violations.items():
            trial.set_constraint(key, violation)
        if values is None:
            self._study.tell(trial, state=TrialState.PRUNED if violations else TrialState.FAIL)
        else:
            self._study.tell(trial, list(values))


def _first(distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]
