"""Proposals without repetition: a sampler, the space, and what has been tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from nas.search.samplers import SAMPLERS, make_sampler, quiet_optuna
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace

Assignment = dict[str, Any]

PATIENCE = 10
"""Repetitions a sampler is granted in a row before an unseen architecture is drawn for it."""

ENUMERABLE = 200_000
"""Spaces up to this many assignments are walked to the last architecture when draws run dry."""

_DRAWS = 200


@dataclass(frozen=True)
class Proposal:
    """An architecture that was not tried before, and how many repetitions it took to find one."""

    assignment: Assignment
    architecture: Architecture
    repeats: int


class Proposer:
    """Propose architectures of a space, each network at most once.

    The sampler works on a study of its own in memory. There repeated proposals fail unheard, and
    inactive axes may have values; the study that people look at holds neither. What is proposed
    depends on the seed and on what was told, not on when a search was interrupted. All objectives
    are minimised.
    """

    def __init__(self, space: SearchSpace, sampler: str, objectives: int, seed: int) -> None:
        self.space = space
        kind = SAMPLERS[sampler]
        self._sampler, self._seed = sampler, seed
        self._enumerate = kind is None
        self._all_axes = kind is not None and kind.all_axes
        self._reseeded = kind is not None and kind.reseeded
        with quiet_optuna():
            self._study = optuna.create_study(
                directions=["minimize"] * objectives, sampler=make_sampler(sampler, seed)
            )
        self._seen: set[str] = set()
        self._open: dict[str, Trial] = {}
        self._walk: Iterator[Assignment] | None = None

    @property
    def seen(self) -> int:
        """Number of distinct networks tried or being tried."""
        return len(self._seen)

    def propose(self) -> Proposal | None:
        """Return an architecture not seen before, or None when the space has no other."""
        if self._enumerate:
            return self._unseen_in_order(0)
        for repeats in range(PATIENCE):
            if self._reseeded:
                # By what was seen, so that a resumed search goes the way it would have gone.
                seed = np.random.SeedSequence([self._seed, self.seen, repeats]).generate_state(1)
                self._study.sampler = make_sampler(self._sampler, int(seed[0]))
            trial = self._study.ask(self.space.distributions() if self._all_axes else None)
            assignment = self.space.suggest(trial)
            if self.space.problem(assignment) is not None:
                self._study.tell(trial, state=TrialState.FAIL)
                continue
            architecture = self.space.architecture(assignment)
            if architecture.digest not in self._seen:
                self._seen.add(architecture.digest)
                self._open[architecture.digest] = trial
                return Proposal(assignment, architecture, repeats)
            self._study.tell(trial, state=TrialState.FAIL)
        return self._unseen_draw() or self._unseen_in_order(PATIENCE)

    def register(self, assignment: Assignment | None, architecture: Architecture) -> None:
        """Count an architecture chosen elsewhere (a reference, an earlier session) as seen.

        Without an assignment (not a member of the space) the sampler never hears of it.
        """
        if architecture.digest in self._seen:
            return
        self._seen.add(architecture.digest)
        if assignment is not None:
            self._adopt(assignment, architecture.digest)

    def tell(
        self,
        digest: str,
        values: Sequence[float] | None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Report the objectives of a proposed architecture; None if it has none.

        `violations` holds by how much it misses each hard limit: relative, above zero is a miss. In
        a study with limits every candidate reports them, or the sampler takes it for infeasible.
        """
        trial = self._open.pop(digest, None)
        if trial is None:
            return
        for key, violation in (violations or {}).items():
            trial.set_constraint(key, violation)
        if values is None:
            self._study.tell(trial, state=TrialState.PRUNED if violations else TrialState.FAIL)
        else:
            self._study.tell(trial, list(values))

    def _adopt(self, assignment: Assignment, digest: str) -> None:
        params = self.space.to_optuna(assignment)
        distributions = self.space.distributions(assignment)
        if self._all_axes:
            everything = self.space.distributions()
            drawn = self.space.to_optuna(self.space.sample(self._rng()))
            params = {
                name: params.get(name, drawn.get(name, _first(distribution)))
                for name, distribution in everything.items()
            }
            distributions = everything
        with quiet_optuna():
            self._study.enqueue_trial(params)
        self._open[digest] = self._study.ask(fixed_distributions=distributions)

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self._seed, self.seen])

    def _unseen_draw(self) -> Proposal | None:
        rng = self._rng()
        for _ in range(_DRAWS):
            found = self._adopt_if_unseen(self.space.sample(rng), PATIENCE)
            if found is not None:
                return found
        return None

    def _unseen_in_order(self, repeats: int) -> Proposal | None:
        if self._walk is None:
            if self.space.size > ENUMERABLE:
                return None
            everything = list(self.space.enumerate())
            np.random.default_rng(self._seed).shuffle(everything)
            self._walk = iter(everything)
        for assignment in self._walk:
            found = self._adopt_if_unseen(assignment, repeats)
            if found is not None:
                return found
        return None

    def _adopt_if_unseen(self, assignment: Assignment, repeats: int) -> Proposal | None:
        architecture = self.space.architecture(assignment)
        if architecture.digest in self._seen:
            return None
        self.register(assignment, architecture)
        return Proposal(assignment, architecture, repeats)


def _first(distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]
