"""Proposals that repeat no network: an engine, a space, and what was tried before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.search.interfaces import Costs, Engine, KnownLimits, Space, learned
from nas.search.optuna_engine import PATIENCE, OptunaEngine
from nas.search.pareto import ParetoEngine
from nas.search.samplers import SAMPLERS
from search_spaces.axes import Assignment
from search_spaces.errors import UserError

ENUMERABLE = 200_000
"""Largest space that is enumerated to its last architecture when draws bring nothing new."""

_DRAWS = 200


@dataclass(frozen=True)
class Proposal:
    """An architecture that was not tried before, and how many repetitions it took to find one."""

    assignment: Assignment
    architecture: Any
    repeats: int


class Proposer:
    """Propose architectures of a space, each network at most once.

    Several proposals may be pending at once. What is proposed depends on the seed and on the
    reported results, not on when a search was interrupted. All objectives are minimised.

    Args:
        space: Where architectures come from.
        sampler: One of `SAMPLERS`.
        objectives: Number of objectives.
        seed: Seed of all random draws.
        options: For `pareto`, the arguments of `ParetoEngine`.
    """

    def __init__(
        self, space: Space, sampler: str, objectives: int, seed: int, **options: Any
    ) -> None:
        self.space, self._seed = space, seed
        self._engine = _engine(space, sampler, objectives, seed, options)
        self._seen: set[str] = set()
        self._walk: Iterator[Assignment] | None = None

    @property
    def seen(self) -> int:
        """Number of distinct networks tried or being tried."""
        return len(self._seen)

    def propose(self) -> Proposal | None:
        """Return an architecture not seen before, or None when the space has no other."""
        if self._engine is None:
            return self._unseen_in_order(0)
        found = self._engine.propose(self._seen, self._rng())
        if found is None:
            return self._unseen_draw() or self._unseen_in_order(PATIENCE)
        proposal = Proposal(*found)
        self._seen.add(proposal.architecture.digest)
        return proposal

    def register(self, assignment: Assignment | None, architecture: Any) -> None:
        """Count an architecture chosen elsewhere (a reference, an earlier session) as seen.

        The sampler learns nothing of one without an assignment, which is no member of the space.
        """
        if architecture.digest in self._seen:
            return
        self._seen.add(architecture.digest)
        if assignment is not None and self._engine is not None:
            self._engine.adopt(assignment, architecture, self._rng())

    def tell(
        self,
        digest: str,
        values: Sequence[float] | None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Report the objectives of a proposed architecture; None if it has none.

        `violations` has the excess over each hard limit, relative to the limit: above 0 where the
        limit is missed. In a study with limits every candidate needs them: Optuna's samplers take
        one without for infeasible.
        """
        if self._engine is not None:
            self._engine.tell(digest, values, violations or {})

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Report a loss while in training: `pareto` learns from it if the training is stopped."""
        if isinstance(self._engine, ParetoEngine):
            self._engine.observe(digest, epoch, loss)

    def warm(
        self,
        assignments: Sequence[Assignment],
        architectures: Sequence[Any],
        values: Sequence[Sequence[float]],
    ) -> None:
        """Learn from candidates of an earlier study of the same space and data.

        They do not count as seen, nor their values as found: the protocol may have been another.

        Raises:
            UserError: if the sampler is not `pareto`.
        """
        if not isinstance(self._engine, ParetoEngine):
            raise UserError("search.sampler: only pareto starts from an earlier study")
        for candidate in zip(assignments, architectures, values, strict=True):
            self._engine.warm(*candidate)

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


def make_proposer(
    space: Space,
    sampler: str,
    objectives: Sequence[str],
    seed: int,
    costs: Costs | None = None,
    limits: KnownLimits | None = None,
    **options: Any,
) -> Proposer:
    """Return a proposer for objectives by name, `reconstruction_loss` or else the first learned.

    Args:
        space: Where architectures come from.
        sampler: One of `SAMPLERS`.
        objectives: Names, in the order in which values are reported.
        seed: Seed of all random draws.
        costs: Architectures -> all objectives but the learned one, in order; NaN in columns that
            it cannot know. Optuna's samplers make no use of it.
        limits: Hard limits that are known before a candidate is tried; Optuna's samplers have to
            learn all of them.
        options: `learned`, `features` and the fields of `ParetoOptions`; for `pareto` alone.
    """
    if sampler == "pareto":
        known = {"learned": objectives.index(learned(objectives)), "costs": costs}
        options = {**known, "limits": limits, **options}
    return Proposer(space, sampler, len(objectives), seed, **options)


def _engine(
    space: Space, sampler: str, objectives: int, seed: int, options: Mapping[str, Any]
) -> Engine | None:
    if sampler == "pareto":
        return ParetoEngine(space, objectives, **options)
    if options:
        raise TypeError(f"{sampler} takes no options, but got {', '.join(options)}")
    kind = SAMPLERS[sampler]
    return None if kind is None else OptunaEngine(space, kind, objectives, seed)
