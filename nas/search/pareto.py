"""A multi-objective sampler that computes what is exact and predicts only what must be learned.

Children of the front, by the space's own mutation and crossover, are screened by the thousand: a
surrogate predicts their loss, their costs are computed, and the one of the highest expected
hypervolume improvement is proposed. The first proposals are spread over the costs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from nas.search.improvement import Floor
from nas.search.members import Array, Assignment, Costs, Features, Member, Space
from nas.search.surrogate import AxisFeatures, fit

_PARENTS = 16
"""A front of fewer points lets the next ones have children too."""

_SPREAD_OVER = 300
"""Draws among which a first proposal is the farthest from all others."""

_REMEMBERED = 20_000
"""Architectures kept because children of the same front recur."""

_VARIANTS = 4
"""Equally likely values that stand for a cost that is not known but learned."""

_TINY = 1e-12


@dataclass(frozen=True)
class ParetoOptions:
    """What the sampler does; each part can be left out.

    Attributes:
        start: Candidates before the surrogate is asked.
        screen: Unseen candidates screened for each proposal; a space of no more is screened whole.
        fresh: Share of them that are drawn from the whole space.
        crossover: Children of two parents as well as of one.
        spread: First proposals far from each other in their costs, or drawn at random.
        surrogate: Screen at all, or propose the first child.
    """

    start: int = 10
    screen: int = 1000
    fresh: float = 0.2
    crossover: bool = True
    spread: bool = True
    surrogate: bool = True


@dataclass(frozen=True)
class _Known:
    """A candidate tried or being tried.

    Attributes:
        costs: Logarithms; NaN where not known.
        loss: What training to the end has found.
        open: Nothing was told of it yet.
        violations: By how much it misses each limit.
        earlier: It is of another study: it teaches, but is no point of the front.
        observed: Epoch -> loss while in training.
    """

    assignment: Assignment
    features: Array
    costs: Array
    loss: float | None = None
    open: bool = True
    violations: Mapping[str, float] = field(default_factory=dict)
    earlier: bool = False
    observed: Mapping[int, float] = field(default_factory=dict)

    @property
    def allowed(self) -> bool:
        return all(violation <= 0 for violation in self.violations.values())


class ParetoEngine:
    """Proposes by expected hypervolume improvement; all objectives are minimised and positive.

    Args:
        space: Where candidates come from.
        objectives: How many values each candidate is told with.
        learned: Which of them only training tells: the loss.
        costs: Architectures -> (architectures, objectives - 1), the others in order; NaN in
            columns it cannot know. Those are learned as well; without `costs`, all are.
        features: Assignments -> what the surrogate is to know of them beside their axes.
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
        **options: Any,
    ) -> None:
        self._space, self._objectives, self._learned = space, objectives, learned
        self._exact, self._axes, self._more = costs, AxisFeatures(space), features
        self._options = ParetoOptions(**options)
        self._known: dict[str, _Known] = {}
        self._earlier: dict[str, _Known] = {}
        self._built: dict[frozenset[Any], Any] = {}

    # What was found

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Take note of a candidate that is being tried; nothing is drawn from `rng`."""
        self._known[architecture.digest] = self._described(assignment, architecture)

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Take note of how a candidate ended; None: rejected, stopped or failed."""
        known = self._known.get(digest)
        if known is None or not known.open:
            return
        known = replace(known, open=False, violations=dict(violations))
        self._known[digest] = known if values is None else self._valued(known, values)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Take note of a loss while in training; of a stopped candidate it is all there is."""
        if known := self._known.get(digest):
            self._known[digest] = replace(known, observed={**known.observed, epoch: loss})

    def warm(self, assignment: Assignment, architecture: Any, values: Sequence[float]) -> None:
        """Learn from a candidate of an earlier study of the same space and data."""
        known = replace(self._described(assignment, architecture), open=False, earlier=True)
        self._earlier[architecture.digest] = self._valued(known, values)

    def _described(self, assignment: Assignment, architecture: Any) -> _Known:
        features = self._features([assignment])[0]
        return _Known(assignment, features, self._costs([architecture])[0])

    def _features(self, assignments: Sequence[Assignment]) -> Array:
        axes = self._axes(assignments)
        return axes if self._more is None else np.hstack([axes, self._more(assignments)])

    def _valued(self, known: _Known, values: Sequence[float]) -> _Known:
        costs = np.delete(np.asarray(values, dtype=np.float64), self._learned)
        return replace(known, loss=float(values[self._learned]), costs=_log(costs))

    def _costs(self, architectures: Sequence[Any]) -> Array:
        if self._exact is None:
            return np.full((len(architectures), self._objectives - 1), np.nan)
        return _log(np.asarray(self._exact(architectures), dtype=np.float64))

    @property
    def _all(self) -> list[_Known]:
        return [*self._earlier.values(), *self._known.values()]

    def _lessons(self) -> tuple[list[_Known], Array]:
        """Return what the surrogate learns from: candidates and the losses to believe in.

        A stopped one counts with the loss it was on the way to; one that failed, with the worst.
        """
        found = [one.loss for one in self._all if one.loss is not None]
        lessons = []
        for one in self._all:
            if one.loss is not None:
                lessons.append((one, one.loss))
            elif not one.open and one.allowed:
                lessons.append((one, self._expected(one) or max(found)))
        return [one for one, _ in lessons], np.array([loss for _, loss in lessons])

    def _expected(self, one: _Known) -> float | None:
        """Where the last observed loss was leading, by the finished trainings; None if unknown."""
        if not one.observed:
            return None
        epoch = max(one.observed)
        ratios = [
            other.loss / other.observed[epoch]
            for other in self._known.values()
            if other.loss is not None and epoch in other.observed
        ]
        return one.observed[epoch] * (float(np.median(ratios)) if ratios else 1.0)

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
            return self._propose(seen, rng)

    def _propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        tried = sum(one.open or one.loss is not None for one in self._all)
        valued = [one for one in self._all if one.loss is not None]
        if tried < self._options.start or len(valued) < 2:
            member = self._first(seen, rng)
        elif self._options.surrogate:
            member = self._best(self._parents(valued), seen, rng)
        else:
            children = self._children(self._parents(valued), rng, _SPREAD_OVER)
            member = next(iter(self._unseen(children, seen, 1)), None)
        if member is None:
            return None
        self.adopt(*member, rng)
        return *member, 0

    def _first(self, seen: Container[str], rng: np.random.Generator) -> Member | None:
        from scipy.spatial.distance import cdist

        draws = (self._space.sample(rng) for _ in range(2 * _SPREAD_OVER))
        members = self._unseen(draws, seen, _SPREAD_OVER if self._options.spread else 1)
        if not members:
            return None
        features, costs = self._table(members)
        tried = np.array([one.costs for one in self._known.values()]).reshape(-1, costs.shape[1])
        known = ~np.isnan(costs).any(axis=0) & ~np.isnan(tried).any(axis=0)
        width = np.maximum(np.ptp(costs[:, known], axis=0), _TINY)
        apart = cdist(costs[:, known] / width, tried[:, known] / width).min(axis=1, initial=1e9)
        return members[int(np.argmax(apart * self._odds(features, costs)))]

    def _best(
        self, parents: Sequence[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Member | None:
        wanted = self._options.screen
        earlier = (one.assignment for one in self._earlier.values())
        if self._space.size <= wanted:
            members = self._unseen(self._space.enumerate(), seen, wanted)
        else:
            children = self._children(parents, rng, 2 * wanted)
            members = self._unseen(chain(earlier, children), seen, wanted)
        if not members:
            return None
        best = self._promising(*self._table(members))
        return members[int(best[0]) if len(best) else 0]

    def _promising(self, features: Array, costs: Array) -> Sequence[int]:
        """Return the candidate of the highest expected hypervolume improvement, if any has one."""
        from moocore import is_nondominated

        lessons, losses = self._lessons()
        waiting = [one for one in self._known.values() if one.open]
        mine = [o for o in self._known.values() if o.loss is not None and o.allowed]
        exact = ~np.isnan(costs).any(axis=0)
        rows = _rows([*lessons, *waiting], exact)
        asked = np.column_stack([features, costs[:, exact], np.zeros(len(costs))])
        predict = fit(rows[: len(lessons)], losses)
        guessed = np.median(predict(rows[len(lessons) :]), axis=1)
        believed = [self._expected(one) or loss for one, loss in zip(waiting, guessed, strict=True)]
        expected = np.array([one.costs for one in waiting]).reshape(-1, costs.shape[1])
        variants = np.repeat(costs[None], 1 if exact.all() else _VARIANTS, axis=0)
        for axis in np.flatnonzero(~exact):
            known = np.array([one.costs[axis] for one in lessons])
            told = ~np.isnan(known)
            guess = fit(rows[: len(lessons)][told], np.exp(known[told]))
            variants[:, :, axis] = np.log(_spread(guess(asked))).T
            expected[:, axis] = np.log(np.median(guess(rows[len(lessons) :]), axis=1))
        points = np.vstack([*(one.costs for one in mine), expected])
        attained = np.array([*(one.loss for one in mine), *believed])
        everything = np.vstack([points, *variants])
        width = np.maximum(np.ptp(everything, axis=0), _TINY)
        reference = np.append(everything.max(axis=0) / width + 0.01, losses.max())
        front = is_nondominated(np.column_stack([points, attained]))
        floor = Floor.of(points[front] / width, attained[front], reference)
        odds = self._odds(features, costs)
        return list(floor.best(variants / width, predict(asked), odds))

    def _odds(self, features: Array, costs: Array) -> Array:
        """Return how probably each candidate is within all limits, as far as any was missed."""
        odds = np.ones(len(costs))
        exact = ~np.isnan(costs).any(axis=0)
        asked = np.column_stack([features, costs[:, exact], np.zeros(len(costs))])
        limits = {name: None for one in self._known.values() for name in one.violations}
        for name in limits:
            told = [one for one in self._known.values() if name in one.violations]
            excess = np.array([one.violations[name] for one in told])
            if excess.max() > 0 and len(told) > 2:
                within = fit(_rows(told, exact), 1 + excess)(asked) <= 1
                odds *= np.maximum(within.mean(axis=1), 1e-3)
        return odds

    def _parents(self, valued: Sequence[_Known]) -> list[Assignment]:
        from moocore import pareto_rank

        allowed = [one for one in valued if one.allowed] or valued
        rank = pareto_rank(np.array([[*one.costs, one.loss] for one in allowed]))
        count = max(int(np.count_nonzero(rank == rank.min())), _PARENTS)
        return [allowed[place].assignment for place in np.argsort(rank, kind="stable")[:count]]

    def _children(
        self, parents: Sequence[Assignment], rng: np.random.Generator, count: int
    ) -> Iterator[Assignment]:
        for _ in range(count):
            if rng.random() < self._options.fresh:
                yield self._space.sample(rng)
                continue
            child, other = (parents[int(place)] for place in rng.integers(len(parents), size=2))
            crossed = self._options.crossover and rng.random() < 0.5
            if crossed:
                child = self._space.crossover(child, other, rng)
            while not crossed or rng.random() < 0.3:
                child, crossed = self._space.mutate(child, rng), True
            yield child

    # Candidates

    def _unseen(
        self, assignments: Iterable[Assignment], seen: Container[str], wanted: int
    ) -> list[Member]:
        if len(self._built) > _REMEMBERED:
            self._built.clear()
        found: dict[str, Member] = {}
        for assignment in assignments:
            key = frozenset(assignment.items())
            if key not in self._built:
                self._built[key] = self._space.architecture(assignment)
            architecture = self._built[key]
            if architecture.digest not in seen:
                found.setdefault(architecture.digest, (assignment, architecture))
            if len(found) == wanted:
                break
        return list(found.values())

    def _table(self, members: Sequence[Member]) -> tuple[Array, Array]:
        costs = self._costs([architecture for _, architecture in members])
        return self._features([assignment for assignment, _ in members]), costs


def _rows(some: Sequence[_Known], exact: Any) -> Array:
    """Describe candidates to a surrogate: features, costs known of all, and which study."""
    return np.array([[*one.features, *one.costs[exact], one.earlier] for one in some])


def _log(values: Array) -> Array:
    logarithms: Array = np.log(np.maximum(values, _TINY))
    return logarithms


def _spread(samples: Array) -> Array:
    """Thin equally likely values (candidates, samples), ascending, out to `_VARIANTS`."""
    thinned: Array = samples.reshape(len(samples), _VARIANTS, -1).mean(axis=2)
    return thinned
