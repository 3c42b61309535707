"""A multi-objective sampler that computes exact costs and learns only the other objectives.

Thousands of mutations of non-dominated candidates are screened: their costs are computed, a
surrogate predicts their loss, and the candidate with the highest expected hypervolume improvement
is proposed. The first proposals are drawn at random from the candidates that satisfy the limits.
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
from nas.search.focus import Focus, compressed, reference_losses
from nas.search.history import History, Observation, surrogate_inputs
from nas.search.interfaces import Array, Costs, Features, KnownLimits, Mask, Space
from nas.search.surrogate import Surrogate, fit
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

_VARIANTS = 4
"""Number of equally likely values that represent a predicted cost."""

_MARGIN = 0.01
"""Distance of the reference point from the highest costs, in units of their range. It makes
candidates of the highest cost dominate some volume too."""

_ONCE_MORE = 0.3
"""Probability of one more mutation of a child, after each mutation."""

_TINY = 1e-12


@dataclass(frozen=True)
class ParetoOptions:
    """Options of the sampler; each part can be disabled.

    Attributes:
        start: Number of candidates that are drawn before the surrogate is used.
        screen: Number of unseen candidates screened for each proposal. A space of at most this size
            is screened completely.
        fresh: Share of the screened candidates that are drawn from the whole space.
        surrogate: Whether to screen by a surrogate, instead of proposing a random mutation.
        focus: The part of the front to search for: see `nas.search.focus`.
        noise: Standard deviation of the learned objective from seed to seed, as in
            `nas.search.surrogate.fit`; None where it is not known.
    """

    start: int = 10
    screen: int = 1000
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
        return self._feasible_draw(self._children(_parents(valued), rng, _DRAWN), seen, rng)

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
        """Return the unseen candidate of the highest acquisition; the first if all are 0."""
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
        """Return the index of the candidate of the highest acquisition; empty if all are 0.

        Proposals take the reference points of the focus in turn; if no candidate improves on the
        front up to one of them, the next is tried.
        """
        data, losses = self._history.training_data()
        turn = len(self._history.own)
        front = self._history.front_losses()
        for reference_loss in reference_losses(self._options.focus, losses, front, turn):
            best = self._most_improving_below(reference_loss, found, data, losses)
            if len(best):
                return best
        return []

    def _most_improving_below(
        self, reference_loss: float, found: Candidates, data: Sequence[Observation], losses: Array
    ) -> Sequence[int]:
        """Do the same for one loss of the reference point.

        Pending candidates count as points of the front at their predicted values, so that parallel
        workers do not evaluate neighbours (the "Kriging believer" of Ginsbourger et al. 2010). The
        prediction is the median, which corresponds to the mean of the logarithm that the process
        models. The surrogate itself is not fitted to predicted values.
        """
        finished = [one for one in self._history.own if one.loss is not None and one.feasible]
        pending = [one for one in self._history.own if one.pending]
        inputs = surrogate_inputs([*data, *pending], found.exact)
        known, waiting, asked = inputs[: len(data)], inputs[len(data) :], found.inputs(found.exact)
        lessons = compressed(losses, reference_loss)
        surrogate = fit(known, lessons, self._history.linear, self._options.noise)
        cost_surrogates = _cost_surrogates(data, known, found.exact, self._history.linear_costs)
        predicted = np.median(surrogate.predict(waiting), axis=1)
        extrapolated = [self._history.expected_loss(one) for one in pending]
        expected = [
            loss if known_loss is None else known_loss
            for known_loss, loss in zip(extrapolated, predicted, strict=True)
        ]
        expected_costs = _expected_costs(pending, cost_surrogates, waiting, found.costs.shape[1])
        costs = np.vstack([*(one.costs for one in finished), expected_costs])
        attained = np.array([*(one.loss for one in finished), *expected])
        variants = _cost_variants(found, cost_surrogates, asked)
        feasibility, predictions = self._feasibility.probability(found), surrogate.predict(asked)
        boxes, width = _undominated(costs, attained, variants, reference_loss)
        return list(boxes.best(variants / width, predictions, feasibility))

    def _children(
        self, parents: Sequence[Assignment], rng: np.random.Generator, count: int
    ) -> Iterator[Assignment]:
        """Yield `count` children: draws from the whole space, or mutations of a random parent."""
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
    """Return the non-dominated candidates, and at least `_PARENTS` by non-dominated rank."""
    from moocore import pareto_rank

    feasible = [one for one in valued if one.feasible] or valued
    rank = pareto_rank(np.array([[*one.costs, one.loss] for one in feasible]))
    count = max(int(np.count_nonzero(rank == rank.min())), _PARENTS)
    return [feasible[place].assignment for place in np.argsort(rank, kind="stable")[:count]]


def _undominated(
    costs: Array, losses: Array, variants: Array, reference_loss: float
) -> tuple[BoxDecomposition, Array]:
    """Return the undominated region, and the range of each cost, which is its unit there.

    The hypervolume is that of costs on their scales and the loss itself. The reference point lies
    beyond the highest costs of all points and candidates by `_MARGIN`. The units of the costs
    multiply every improvement by the same factor, so they do not change the order of the
    candidates.

    Args:
        costs: (points, costs), on their scales.
        losses: (points,).
        variants: (variants, candidates, costs), likewise.
        reference_loss: Loss of the reference point.
    """
    from moocore import is_nondominated

    everything = np.vstack([costs, *variants])
    width = np.maximum(np.ptp(everything, axis=0), _TINY)
    reference = np.append(everything.max(axis=0) / width + _MARGIN, reference_loss)
    front = is_nondominated(np.column_stack([costs, losses]))
    return BoxDecomposition.of(costs[front] / width, losses[front], reference), width


def _cost_surrogates(
    data: Sequence[Observation], known: Array, exact: Mask, linear: Mask
) -> dict[int, Surrogate]:
    """Return column -> surrogate for each cost that is not exact, fitted where it is known."""
    found = {}
    for axis in np.flatnonzero(~exact).tolist():
        costs = np.array([one.costs[axis] for one in data])
        measured = ~np.isnan(costs)
        values = costs[measured] if linear[axis] else np.exp(costs[measured])
        found[axis] = fit(known[measured], values, bool(linear[axis]))
    return found


def _cost_variants(found: Candidates, surrogates: Mapping[int, Surrogate], asked: Array) -> Array:
    """Return equally likely costs on their scales, (variants, candidates, costs)."""
    variants = np.repeat(found.costs[None], _VARIANTS if surrogates else 1, axis=0)
    for axis, surrogate in surrogates.items():
        quantiles = surrogate.predict(asked)
        thinned = quantiles.reshape(len(quantiles), _VARIANTS, -1).mean(axis=2)
        variants[:, :, axis] = (thinned if surrogate.linear else np.log(thinned)).T
    return variants


def _expected_costs(
    pending: Sequence[Observation], surrogates: Mapping[int, Surrogate], inputs: Array, columns: int
) -> Array:
    """Return the costs of pending candidates on their scales, (pending, costs).

    Costs that are not known are the median of a prediction.
    """
    expected = np.array([one.costs for one in pending]).reshape(-1, columns)
    for axis, surrogate in surrogates.items():
        median = np.median(surrogate.predict(inputs), axis=1)
        expected[:, axis] = median if surrogate.linear else np.log(median)
    return expected
