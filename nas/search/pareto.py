"""A multi-objective sampler that computes exact costs and learns only the other objectives.

Mutations of non-dominated candidates are screened: their costs are computed, and a surrogate
predicts their loss. The search for the highest expected hypervolume improvement continues around
the best of them, and the candidate found is proposed. The first proposals are drawn at random from
the candidates that satisfy the limits.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import numpy as np

from nas.search.acquisition import BoxDecomposition
from nas.search.candidates import Candidates, Catalogue
from nas.search.feasibility import Feasibility
from nas.search.focus import Focus, reference_losses
from nas.search.history import History, Observation
from nas.search.interfaces import Array, Costs, Features, KnownLimits, Space
from nas.search.screening import Predictions, Screening
from search_spaces.axes import Assignment

_PARENTS = 16
"""Minimum number of parents; a front of fewer points is completed by the next fronts."""

_DRAWN = 300
"""Unseen candidates from which a proposal without a surrogate is selected by the limits."""

_ENOUGH = 30
"""Number of draws that may satisfy all limits that is enough to select by their probability."""

_PATIENCE = 5
"""Generations of mutations towards the limits without progress, after which these end. Random draws
from a large space rarely satisfy tight limits."""

_COMPLETE = 1000
"""Size of the largest space that is screened completely for each proposal."""

_MODERATE = 100_000
"""Size of the largest space in which mutations of the front are screened without refinement."""

_AROUND = 30
"""Mutations of the best candidates in a round of refinement."""

_ONCE_MORE = 0.3
"""Probability of one more mutation of a child, after each mutation."""

_TINY = 1e-12


@dataclass(frozen=True)
class ParetoOptions:
    """Options of the sampler; each part can be disabled.

    Attributes:
        start: Number of candidates that are drawn before the surrogate is used.
        screen: Number of unseen candidates screened for each proposal, before refinement. None:
            1000 in a space of at most `_MODERATE` members, 100 in a larger one.
        refine: Rounds of refinement: in each the best candidates are compared with mutations of
            them. None: 0 and 10 likewise. In a large space rounds find higher improvements than as
            many candidates at once; docs/search.md has the effect in both.
        fresh: Share of the screened candidates that are drawn from the whole space.
        surrogate: Whether to screen by a surrogate, instead of proposing a random mutation.
        focus: The part of the front to search for: see `nas.search.focus`.
        noise: Standard deviation of the learned objective from seed to seed, as in
            `nas.search.surrogate.fit`; None where it is not known.
    """

    start: int = 10
    screen: int | None = None
    refine: int | None = None
    fresh: float = 0.2
    surrogate: bool = True
    focus: Focus = "balanced"
    noise: float | None = None


class ParetoEngine:
    """Proposes by expected hypervolume improvement; all objectives are minimised.

    Args:
        space: The search space.
        objectives: Number of objectives.
        learned: Position of the objective that is known only after training: the loss.
        linear: Positions of the objectives on a linear scale; the others are positive. Their costs
            count by the logarithm, so that equal factors count equally.
        costs: Architectures -> (architectures, objectives - 1), the other objectives in order; NaN
            in columns that are not known. These are learned as well; without `costs`, all are.
        features: Assignments -> (assignments, features), inputs of the surrogate in addition to the
            axes.
        limits: Limits whose excess is known or predicted; the others are learned.
        options: Fields of `ParetoOptions`.
    """

    def __init__(
        self,
        space: Space,
        objectives: int,
        *,
        learned: int = 0,
        linear: Collection[int] = (),
        costs: Costs | None = None,
        features: Features | None = None,
        limits: KnownLimits | None = None,
        **options: Any,
    ) -> None:
        self._space = space
        self._options = ParetoOptions(**options)
        self._history = History(learned, np.array([place in linear for place in range(objectives)]))
        self._catalogue = Catalogue(space, self._history.linear_costs, costs, features, limits)
        self._feasibility = Feasibility(self._history, limits)

    # Results

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Add a candidate that is being evaluated; `rng` is not used."""
        self._history.add(architecture.digest, self._described(assignment, architecture))

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Record the objective values of a candidate; None: rejected, stopped or failed."""
        self._history.tell(digest, values, violations)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Record a loss during training."""
        self._history.observe(digest, epoch, loss)

    def warm(self, assignment: Assignment, architecture: Any, values: Sequence[float]) -> None:
        """Learn from a candidate of an earlier study of the same space and data."""
        observation = self._described(assignment, architecture)
        self._history.warm(architecture.digest, observation, values)

    def _described(self, assignment: Assignment, architecture: Any) -> Observation:
        return Observation(assignment, *self._catalogue.describe(assignment, architecture))

    # Proposals

    def propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        """Return assignment, architecture and 0; None if no unseen candidate was drawn.

        Linear algebra runs on one thread: on busy cores, the threads of a product of small matrices
        wait for each other many times as long as they work. Proposals then do not depend on the
        number of cores either.
        """
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            chosen = self._chosen(seen, rng)
        if chosen is None:
            return None
        architecture = self._space.architecture(chosen)
        self.adopt(chosen, architecture, rng)
        return chosen, architecture, 0

    def _chosen(self, seen: Container[str], rng: np.random.Generator) -> Assignment | None:
        observed = self._history.all
        # Rejected, stopped and failed candidates do not count: a surrogate needs losses.
        tried = sum(one.pending or one.loss is not None for one in observed)
        valued = [one for one in observed if one.loss is not None]
        if tried < self._options.start or len(valued) < 2:
            draws = (self._space.sample(rng) for _ in range(2 * _DRAWN))
            if tried < self._options.start:
                return self._feasible_draw(draws, seen, rng)
            return self._spread_draw(draws, seen)
        if self._options.surrogate:
            return self._screened(_parents(valued), seen, rng)
        return self._feasible_draw(
            self._children(_parents(valued), rng, _DRAWN, self._options.fresh), seen, rng
        )

    def _feasible_draw(
        self, assignments: Iterable[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        """Draw an unseen candidate with a probability in proportion to its feasibility."""
        limited = self._feasibility.limited
        found = self._catalogue.unseen(assignments, seen, _DRAWN if limited else 1)
        if not len(found):
            return None
        reached, stale = np.inf, 0
        while stale < _PATIENCE:
            excess = self._feasibility.largest_excess(found)
            enough = np.sort(excess)[:_ENOUGH][-1]
            if enough <= 0:
                break
            reached, stale = min(reached, enough), 0 if enough < reached else stale + 1
            found = self._nearer(found, excess, seen, rng)
        else:  # not reached: the nearest teaches most
            return found.assignments[int(self._feasibility.largest_excess(found).argmin())]
        weights = self._feasibility.probability(found) if limited else np.ones(1)
        if not weights.any():
            return found.assignments[0]
        return found.assignments[int(rng.choice(len(found), p=weights / weights.sum()))]

    def _spread_draw(
        self, assignments: Iterable[Assignment], seen: Container[str]
    ) -> Assignment | None:
        """Return the unseen candidate that is farthest from all that are being evaluated.

        With many workers the first wave of proposals ends before a loss is known. Costs and
        features are known, so the wave is spread over them. Candidates that are predicted to exceed
        a limit are left out if there are others.
        """
        found, own = self._catalogue.unseen(assignments, seen, _DRAWN), self._history.own
        if not len(found):
            return None
        if not own:
            return found.assignments[0]
        exact = found.exact
        theirs = np.array([np.append(one.features, one.costs[exact]) for one in own])
        ours = np.column_stack([found.features, found.costs[:, exact]])
        weights = np.append(
            np.full(found.features.shape[1], 1 / max(1, found.features.shape[1])),
            np.full(int(exact.sum()), 1 / max(1, int(exact.sum()))),
        )
        variance = np.maximum(np.vstack([ours, theirs]).var(axis=0), _TINY)
        apart = (ours[:, None] - theirs[None]) ** 2 @ (weights / variance)
        nearest = apart.min(axis=1)
        nearest[self._feasibility.largest_excess(found) > 0] -= np.inf
        return found.assignments[int(nearest.argmax())]

    def _nearer(
        self, found: Candidates, excess: Array, seen: Container[str], rng: np.random.Generator
    ) -> Candidates:
        """Return the candidates nearest to the limits, and mutations of them.

        Mutations of candidates that satisfied the limits are added: a walk towards tight limits can
        end before it reaches them.
        """
        nearest = [found.assignments[place] for place in np.argsort(excess)[:_PARENTS]]
        reached = [
            one.assignment
            for one in self._history.own
            if one.feasible and (one.pending or one.loss is not None)
        ]
        children = (self._space.mutate(one, rng) for one in cycle([*nearest, *reached]))
        some = chain(nearest, islice(children, _DRAWN))
        return self._catalogue.unseen(some, seen, _DRAWN)

    def _screened(
        self, parents: Sequence[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        """Return the unseen candidate of the highest acquisition; the first if all are 0.

        Proposals take the reference points of the focus in turn; if no candidate improves on the
        front up to one of them, the next is tried.
        """
        large, options = self._space.size > _MODERATE, self._options
        refine = (10 if large else 0) if options.refine is None else options.refine
        if self._space.size <= _COMPLETE:
            refine = 0
            found = self._catalogue.unseen(self._space.enumerate(), seen, _COMPLETE)
        else:
            wanted = options.screen or (100 if large else 1000)
            earlier = [one.assignment for one in self._history.earlier[-_COMPLETE:]]
            children = self._children(parents, rng, 2 * wanted, options.fresh)
            found = self._catalogue.unseen(chain(earlier, children), seen, wanted + len(earlier))
        if not len(found):
            return None
        for reference_loss in self._reference_losses():
            screening = Screening.of(
                self._history, self._feasibility, found.exact, reference_loss, options.noise
            )
            predictions = screening.predict(found)
            undominated = screening.undominated(predictions)
            best = _best(undominated, predictions, found)
            for _ in range(refine if best else 0):
                children = self._children(best, rng, _AROUND, fresh=0)
                nearby = self._catalogue.unseen(chain(best, children), seen, len(best) + _AROUND)
                best = _best(undominated, screening.predict(nearby), nearby)
            if best:
                return best[0]
        return found.assignments[0]

    def _reference_losses(self) -> list[float]:
        losses = self._history.training_data()[1]
        front, turn = self._history.front_losses(), len(self._history.own)
        return reference_losses(self._options.focus, losses, front, turn)

    def _children(
        self, parents: Sequence[Assignment], rng: np.random.Generator, count: int, fresh: float
    ) -> Iterator[Assignment]:
        """Yield `count` children: draws from the whole space, or mutations of a random parent."""
        for _ in range(count):
            if rng.random() < fresh:
                yield self._space.sample(rng)
                continue
            child = parents[int(rng.integers(len(parents)))]
            mutated = False
            while not mutated or rng.random() < _ONCE_MORE:
                child, mutated = self._space.mutate(child, rng), True
            yield child


def _parents(valued: Sequence[Observation]) -> list[Assignment]:
    """Return the non-dominated candidates, and at least `_PARENTS` by non-dominated rank."""
    from moocore import pareto_rank

    feasible = [one for one in valued if one.feasible] or valued
    rank = pareto_rank(np.array([[*one.costs, one.loss] for one in feasible]))
    count = max(int(np.count_nonzero(rank == rank.min())), _PARENTS)
    return [feasible[place].assignment for place in np.argsort(rank, kind="stable")[:count]]


def _best(
    undominated: BoxDecomposition, predictions: Predictions, found: Candidates
) -> list[Assignment]:
    """Return the candidates of the highest acquisition, best first; none if none improves."""
    places = undominated.best(
        predictions.costs, predictions.losses, predictions.feasibility, _PARENTS
    )
    return [found.assignments[int(place)] for place in places]
