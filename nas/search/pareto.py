"""A multi-objective sampler that computes what is exact and predicts only what must be learned.

Mutations of non-dominated candidates are screened by the thousand: their costs are computed, a
surrogate predicts their loss, and the one of the highest expected hypervolume improvement is
proposed. The first proposals are drawn at random from what keeps to the limits.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any

import numpy as np

from nas.search.acquisition import BoxDecomposition
from nas.search.candidates import Candidates, Catalogue
from nas.search.feasibility import Feasibility
from nas.search.history import History, Observation, surrogate_inputs
from nas.search.interfaces import Array, Costs, Features, KnownLimits, Mask, Space
from nas.search.surrogate import Surrogate, fit
from search_spaces.axes import Assignment

_PARENTS = 16
"""Least number of parents: a front of fewer points is filled up from the fronts behind it."""

_DRAWN = 300
"""Unseen draws among which a proposal without a surrogate is likely to keep to the limits."""

_ENOUGH = 30
"""Draws within the known limits that are enough to choose from by limits that are learned."""

_GENERATIONS = 30
"""Most generations of draws that mutate towards the limits, where none keeps to them: a random
draw from a large space rarely keeps to tight limits. A generation takes a tenth of a second."""

_VARIANTS = 4
"""Equally likely values that stand for a cost that is learned instead of known."""

_MARGIN = 0.01
"""How far the reference point lies beyond the highest costs, in units of their range, so that the
candidates of the highest cost dominate some volume as well."""

_ONCE_MORE = 0.3
"""Probability that a child is mutated once more, after each mutation."""

_TINY = 1e-12


@dataclass(frozen=True)
class ParetoOptions:
    """What the sampler does; each part can be left out.

    Attributes:
        start: Candidates before the surrogate is asked.
        screen: Unseen candidates screened for each proposal; a space of no more is screened whole.
        fresh: Share of them that are drawn from the whole space.
        surrogate: Screen at all, or propose the first child.
    """

    start: int = 10
    screen: int = 1000
    fresh: float = 0.2
    surrogate: bool = True


class ParetoEngine:
    """Proposes by expected hypervolume improvement; all objectives are minimised and positive.

    Args:
        space: Where candidates come from.
        objectives: Number of objectives.
        learned: Position of the objective that only training tells: the loss.
        costs: Architectures -> (architectures, objectives - 1), the others in order; NaN in
            columns it cannot know. Those are learned as well; without `costs`, all are.
        features: Assignments -> what the surrogate is to know of them beside their axes.
        limits: Limits that need not be learned from what missed them.
        options: As fields of `ParetoOptions`.
    """

    def __init__(
        self,
        space: Space,
        objectives: int,
        *,
        learned: int = 0,
        costs: Costs | None = None,
        features: Features | None = None,
        limits: KnownLimits | None = None,
        **options: Any,
    ) -> None:
        self._space = space
        self._catalogue = Catalogue(space, objectives - 1, costs, features, limits)
        self._options = ParetoOptions(**options)
        self._history = History(learned)
        self._feasibility = Feasibility(self._history, limits)

    # What was found

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Take note of a candidate that is being tried; nothing is drawn from `rng`."""
        self._history.add(architecture.digest, self._described(assignment, architecture))

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Take note of how a candidate ended; None: rejected, stopped or failed."""
        self._history.tell(digest, values, violations)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Take note of a loss while in training."""
        self._history.observe(digest, epoch, loss)

    def warm(self, assignment: Assignment, architecture: Any, values: Sequence[float]) -> None:
        """Learn from a candidate of an earlier study of the same space and data."""
        observation = self._described(assignment, architecture)
        self._history.warm(architecture.digest, observation, values)

    def _described(self, assignment: Assignment, architecture: Any) -> Observation:
        return Observation(assignment, *self._catalogue.describe(assignment, architecture))

    # What to try next

    def propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        """Return assignment, architecture and 0; None where nothing unseen was drawn.

        On one thread: where others want the cores, the threads of a small matrix wait for each
        other many times as long as they work. It also keeps proposals from depending on the cores.
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
        tried = sum(one.pending or one.loss is not None for one in observed)
        valued = [one for one in observed if one.loss is not None]
        if tried < self._options.start or len(valued) < 2:
            draws = (self._space.sample(rng) for _ in range(2 * _DRAWN))
            return self._feasible_draw(draws, seen, rng)
        if self._options.surrogate:
            return self._screened(_parents(valued), seen, rng)
        return self._feasible_draw(self._children(_parents(valued), rng, _DRAWN), seen, rng)

    def _feasible_draw(
        self, assignments: Iterable[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        """Return an unseen one, drawn in proportion to its probability of keeping to the limits."""
        limited = self._feasibility.limited
        found = self._catalogue.unseen(assignments, seen, _DRAWN if limited else 1)
        for _ in range(_GENERATIONS):
            excess = self._feasibility.largest_excess(found)
            if np.count_nonzero(excess <= 0) >= min(_ENOUGH, len(found)):
                break
            found = self._nearer(found, excess, seen, rng)
        if not len(found):
            return None
        weights = self._feasibility.probability(found) if limited else np.ones(1)
        if not weights.any():
            return found.assignments[0]
        return found.assignments[int(rng.choice(len(found), p=weights / weights.sum()))]

    def _nearer(
        self, found: Candidates, excess: Array, seen: Container[str], rng: np.random.Generator
    ) -> Candidates:
        """Return the candidates nearest to the limits, and mutations of them."""
        nearest = [found.assignments[place] for place in np.argsort(excess)[:_PARENTS]]
        children = (self._space.mutate(one, rng) for one in cycle(nearest))
        some = chain(nearest, islice(children, _DRAWN))
        return self._catalogue.unseen(some, seen, _DRAWN)

    def _screened(
        self, parents: Sequence[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        """Return the unseen candidate of the highest acquisition; the first if none has any."""
        wanted = self._options.screen
        if self._space.size <= wanted:
            found = self._catalogue.unseen(self._space.enumerate(), seen, wanted)
        else:
            earlier = (one.assignment for one in self._history.earlier)
            children = self._children(parents, rng, 2 * wanted)
            found = self._catalogue.unseen(chain(earlier, children), seen, wanted)
        if not len(found):
            return None
        best = self._most_improving(found)
        return found.assignments[int(best[0]) if len(best) else 0]

    def _most_improving(self, found: Candidates) -> Sequence[int]:
        """Return the candidate of the highest expected hypervolume improvement, if any has one.

        Pending candidates count as points of the front at their expected values, so that several
        workers are not sent to the same place (the "Kriging believer" of Ginsbourger et al. 2010).
        """
        data, losses = self._history.training_data()
        finished = [one for one in self._history.own if one.loss is not None and one.feasible]
        pending = [one for one in self._history.own if one.pending]
        inputs = surrogate_inputs([*data, *pending], found.exact)
        known, waiting, asked = inputs[: len(data)], inputs[len(data) :], found.inputs(found.exact)
        surrogate, cost_surrogates = fit(known, losses), _cost_surrogates(data, known, found.exact)
        predicted = np.median(surrogate.predict(waiting), axis=1)
        expected = [
            self._history.expected_loss(one) or loss
            for one, loss in zip(pending, predicted, strict=True)
        ]
        expected_costs = _expected_costs(pending, cost_surrogates, waiting, found.costs.shape[1])
        costs = np.vstack([*(one.costs for one in finished), expected_costs])
        attained = np.array([*(one.loss for one in finished), *expected])
        variants = _cost_variants(found, cost_surrogates, asked)
        boxes, width = _undominated(costs, attained, variants, losses.max())
        feasibility = self._feasibility.probability(found)
        return list(boxes.best(variants / width, surrogate.predict(asked), feasibility))

    def _children(
        self, parents: Sequence[Assignment], rng: np.random.Generator, count: int
    ) -> Iterator[Assignment]:
        """Yield draws from the whole space and mutations of the parents, of one step or more."""
        for _ in range(count):
            if rng.random() < self._options.fresh:
                yield self._space.sample(rng)
                continue
            child = parents[int(rng.integers(len(parents)))]
            mutated = False
            while not mutated or rng.random() < _ONCE_MORE:
                child, mutated = self._space.mutate(child, rng), True
            yield child


def _parents(valued: Sequence[Observation]) -> list[Assignment]:
    """Return the non-dominated candidates, and as many behind them as make `_PARENTS`."""
    from moocore import pareto_rank

    feasible = [one for one in valued if one.feasible] or valued
    rank = pareto_rank(np.array([[*one.costs, one.loss] for one in feasible]))
    count = max(int(np.count_nonzero(rank == rank.min())), _PARENTS)
    return [feasible[place].assignment for place in np.argsort(rank, kind="stable")[:count]]


def _undominated(
    costs: Array, losses: Array, variants: Array, highest_loss: float
) -> tuple[BoxDecomposition, Array]:
    """Return what points leave undominated, and the width of each cost that is its unit there.

    The reference point lies just beyond the highest costs, of points or candidates, and at the
    highest loss. Units scale all improvements alike; they give `_MARGIN` its meaning.
    """
    from moocore import is_nondominated

    everything = np.vstack([costs, *variants])
    width = np.maximum(np.ptp(everything, axis=0), _TINY)
    reference = np.append(everything.max(axis=0) / width + _MARGIN, highest_loss)
    front = is_nondominated(np.column_stack([costs, losses]))
    return BoxDecomposition.of(costs[front] / width, losses[front], reference), width


def _cost_surrogates(
    data: Sequence[Observation], known: Array, exact: Mask
) -> dict[int, Surrogate]:
    """Return a surrogate for each cost that is not exact, from the candidates that have it."""
    found = {}
    for axis in np.flatnonzero(~exact).tolist():
        costs = np.array([one.costs[axis] for one in data])
        measured = ~np.isnan(costs)
        found[axis] = fit(known[measured], np.exp(costs[measured]))
    return found


def _cost_variants(found: Candidates, surrogates: Mapping[int, Surrogate], asked: Array) -> Array:
    """Return logarithms of equally likely costs, (variants, candidates, costs)."""
    variants = np.repeat(found.costs[None], _VARIANTS if surrogates else 1, axis=0)
    for axis, surrogate in surrogates.items():
        quantiles = surrogate.predict(asked)
        thinned = quantiles.reshape(len(quantiles), _VARIANTS, -1).mean(axis=2)
        variants[:, :, axis] = np.log(thinned).T
    return variants


def _expected_costs(
    pending: Sequence[Observation], surrogates: Mapping[int, Surrogate], inputs: Array, columns: int
) -> Array:
    """Return the logarithms of pending candidates' costs, known or predicted: (pending, costs)."""
    expected = np.array([one.costs for one in pending]).reshape(-1, columns)
    for axis, surrogate in surrogates.items():
        expected[:, axis] = np.log(np.median(surrogate.predict(inputs), axis=1))
    return expected
