"""Proposals of architectures, each network at most once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.objectives import by_factor, minimised, sign_of
from nas.search.interfaces import Costs, Engine, KnownLimits, Space, learned
from nas.search.optuna_engine import PATIENCE, OptunaEngine
from nas.search.pareto import ParetoEngine
from nas.search.samplers import SAMPLERS
from search_spaces.axes import Assignment
from search_spaces.errors import UserError

ENUMERABLE = 200_000
"""Largest space that is enumerated when draws find no unseen architecture."""

_DRAWS = 200


@dataclass(frozen=True)
class Proposal:
    """An unseen architecture, and the number of repeated proposals before it was found."""

    assignment: Assignment
    architecture: Any
    repeats: int


class Proposer:
    """Proposes architectures of a space, each network at most once.

    Several proposals may be pending at once. Proposals depend on the seed and on the reported
    results, not on interruptions of the search. Values are reported as they are: this class changes
    the signs of maximised objectives, so that every engine minimises.

    Args:
        space: The search space.
        sampler: One of `SAMPLERS`.
        objectives: Names of the objectives, in the order in which values are reported.
        seed: Seed of all random draws.
        options: For `pareto`, the arguments of `ParetoEngine`.
    """

    def __init__(
        self, space: Space, sampler: str, objectives: Sequence[str], seed: int, **options: Any
    ) -> None:
        self.space, self._seed, self._objectives = space, seed, tuple(objectives)
        self._engine = _engine(space, sampler, len(objectives), seed, options)
        self._seen: set[str] = set()
        self._walk: Iterator[Assignment] | None = None

    @property
    def seen(self) -> int:
        """Number of distinct networks evaluated or being evaluated."""
        return len(self._seen)

    def propose(self) -> Proposal | None:
        """Return an unseen architecture, or None if none was found in the space."""
        if self._engine is None:
            return self._unseen_in_order(0)
        found = self._engine.propose(self._seen, self._rng())
        if found is None:
            return self._unseen_draw() or self._unseen_in_order(PATIENCE)
        proposal = Proposal(*found)
        self._seen.add(proposal.architecture.digest)
        return proposal

    def register(self, assignment: Assignment | None, architecture: Any) -> None:
        """Mark an architecture chosen elsewhere (a reference, an earlier session) as seen.

        The sampler does not learn from an architecture without an assignment, because it is not a
        member of the space.
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
        """Report the result of a proposed architecture.

        Args:
            digest: Digest of the architecture.
            values: The objective values; None if there are none.
            violations: Limit -> value over limit minus 1; above 0 where the limit is exceeded. In a
                study with limits every candidate needs them, because Optuna's samplers treat a
                candidate without them as infeasible.
        """
        if self._engine is not None:
            told = None if values is None else minimised(values, self._objectives).tolist()
            self._engine.tell(digest, told, violations or {})

    def observe(self, digest: str, epoch: int, value: float) -> None:
        """Report the learned objective during training, for `pareto` if the training is stopped."""
        if isinstance(self._engine, ParetoEngine):
            self._engine.observe(digest, epoch, sign_of(learned(self._objectives)) * value)

    def warm(
        self,
        assignments: Sequence[Assignment],
        architectures: Sequence[Any],
        values: Sequence[Sequence[float]],
    ) -> None:
        """Learn from candidates of an earlier study of the same space and data.

        They are neither marked as seen nor points of the front, because the protocol of the earlier
        study may have differed.

        Args:
            assignments: Their assignments.
            architectures: Their architectures, in the same order.
            values: Their objective values, in the same order.

        Raises:
            UserError: the sampler is not `pareto`.
        """
        if not isinstance(self._engine, ParetoEngine):
            raise UserError("search.sampler: only pareto can start from an earlier study")
        for assignment, architecture, known in zip(assignments, architectures, values, strict=True):
            told = minimised(known, self._objectives).tolist()
            self._engine.warm(assignment, architecture, told)

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
    """Return a proposer for objectives given by name.

    The learned objective is the first that training finds, or the first if there is none. Those
    compared by differences are on a linear scale, the others on a logarithmic one.

    Args:
        space: The search space.
        sampler: One of `SAMPLERS`.
        objectives: Names, in the order in which values are reported.
        seed: Seed of all random draws.
        costs: Architectures -> all objectives except the learned one, in order; NaN in columns that
            are not known. Optuna's samplers do not use it.
        limits: Hard limits that are known before a candidate is evaluated; Optuna's samplers have
            to learn all of them.
        options: For `pareto` only: `features` and the fields of `ParetoOptions`.
    """
    if sampler == "pareto":
        known = {
            "learned": objectives.index(learned(objectives)),
            "linear": [place for place, name in enumerate(objectives) if not by_factor(name)],
            "costs": costs and _minimised(costs, objectives),
        }
        options = {**known, "limits": limits, **options}
    return Proposer(space, sampler, objectives, seed, **options)


def _minimised(costs: Costs, objectives: Sequence[str]) -> Costs:
    """Return the function of costs with the signs of maximised objectives changed."""
    names = [name for name in objectives if name != learned(objectives)]
    return lambda architectures: minimised(costs(architectures), names)


def _engine(
    space: Space, sampler: str, objectives: int, seed: int, options: Mapping[str, Any]
) -> Engine | None:
    if sampler == "pareto":
        return ParetoEngine(space, objectives, **options)
    if options:
        raise TypeError(f"{sampler} takes no options, but got {', '.join(options)}")
    kind = SAMPLERS[sampler]
    return None if kind is None else OptunaEngine(space, kind, objectives, seed)
