"""A multi-objective sampler that computes what is exact and predicts only what must be learned.

Children of the front, by the space's own mutation, are screened by the thousand: a surrogate
predicts their loss, their costs are computed, and the one of the highest expected hypervolume
improvement is proposed. The first proposals are drawn at random from what keeps to the limits.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from typing import Any

import numpy as np

from nas.search.candidates import Candidates, Catalogue, logarithms
from nas.search.improvement import Floor
from nas.search.interfaces import (
    Array,
    Costs,
    Features,
    KnownLimits,
    Space,
)
from nas.search.surrogate import fit
from search_spaces.axes import Assignment

_PARENTS = 16
"""A front of fewer points lets the next ones have children too."""

_DRAWN = 300
"""Unseen draws among which a proposal without a surrogate is likely to keep to the limits."""

_ENOUGH = 30
"""Of them, to choose from by limits that have to be learned."""

_CAUTION = 0.8
"""Share of the guesses at a limit that turned out lower than what they are taken for."""

_FEW, _LEAST_OFF = 3, 0.03
"""Candidates from which on it counts by how much guesses are off, and the least that is."""

_GENERATIONS = 30
"""Of draws that mutate towards the limits, where none keeps to them: those of large spaces rarely
keep to tight limits. A generation takes a tenth of a second."""

_TAUGHT = 1000
"""Candidates that a surrogate learns from at most: the time of a fit grows with their cube."""

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
        surrogate: Screen at all, or propose the first child.
    """

    start: int = 10
    screen: int = 1000
    fresh: float = 0.2
    surrogate: bool = True


@dataclass(frozen=True)
class _Known:
    """A candidate tried or being tried.

    Attributes:
        costs: Logarithms; NaN where not known.
        excess: By how much it was believed to miss each known limit, as a logarithm.
        loss: What training to the end has found.
        open: Nothing was told of it yet.
        violations: By how much it misses each limit.
        earlier: It is of another study: it teaches, but is no point of the front.
        observed: Epoch -> loss while in training.
    """

    assignment: Assignment
    features: Array
    costs: Array
    excess: Array
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
        self._space, self._learned = space, learned
        self._limits = limits
        self._catalogue = Catalogue(space, objectives - 1, costs, features, limits)
        self._options = ParetoOptions(**options)
        self._known: dict[str, _Known] = {}
        self._earlier: dict[str, _Known] = {}

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
        return _Known(assignment, *self._catalogue.describe(assignment, architecture))

    def _valued(self, known: _Known, values: Sequence[float]) -> _Known:
        costs = np.delete(np.asarray(values, dtype=np.float64), self._learned)
        return replace(known, loss=float(values[self._learned]), costs=logarithms(costs))

    @property
    def _all(self) -> list[_Known]:
        return [*self._earlier.values(), *self._known.values()]

    def _lessons(self) -> tuple[list[_Known], Array]:
        """Return what the surrogate learns from: candidates and the losses to believe in.

        A stopped one counts with the loss it was on the way to; one that failed, with the worst. Of
        very many, the later half is learned from, which is nearer to the front, and of the earlier
        ones an even choice.
        """
        found = [one.loss for one in self._all if one.loss is not None]
        lessons = []
        for one in self._all:
            if one.loss is not None:
                lessons.append((one, one.loss))
            elif not one.open and one.allowed:
                lessons.append((one, self._expected(one) or max(found)))
        if (surplus := len(lessons) - _TAUGHT) > 0:
            early = len(lessons) - _TAUGHT // 2
            even = np.linspace(0, early - 1, early - surplus).astype(int)
            lessons = [*(lessons[place] for place in even), *lessons[early:]]
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
            draws = (self._space.sample(rng) for _ in range(2 * _DRAWN))
            chosen = self._likely(draws, seen, rng)
        elif self._options.surrogate:
            chosen = self._best(self._parents(valued), seen, rng)
        else:
            children = self._children(self._parents(valued), rng, _DRAWN)
            chosen = self._likely(children, seen, rng)
        if chosen is None:
            return None
        architecture = self._space.architecture(chosen)
        self.adopt(chosen, architecture, rng)
        return chosen, architecture, 0

    def _likely(
        self, assignments: Iterable[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        """Return an unseen one, drawn as probably as it keeps to the limits."""
        limited = self._limits or any(one.violations for one in self._known.values())
        found = self._catalogue.unseen(assignments, seen, _DRAWN if limited else 1)
        for _ in range(_GENERATIONS):
            excess = self._most_missed(found)
            if np.count_nonzero(excess <= 0) >= min(_ENOUGH, len(found)):
                break
            found = self._nearer(found, excess, seen, rng)
        if not len(found):
            return None
        odds = self._odds(found) if limited else np.ones(1)
        if not odds.any():
            return found.assignments[0]
        return found.assignments[int(rng.choice(len(found), p=odds / odds.sum()))]

    def _nearer(
        self, found: Candidates, excess: Array, seen: Container[str], rng: np.random.Generator
    ) -> Candidates:
        """Return the candidates nearest to the limits, and children of theirs."""
        nearest = [found.assignments[place] for place in np.argsort(excess)[:_PARENTS]]
        children = (self._space.mutate(one, rng) for one in cycle(nearest))
        some = chain(nearest, islice(children, _DRAWN))
        return self._catalogue.unseen(some, seen, _DRAWN)

    def _best(
        self, parents: Sequence[Assignment], seen: Container[str], rng: np.random.Generator
    ) -> Assignment | None:
        wanted = self._options.screen
        earlier = (one.assignment for one in self._earlier.values())
        if self._space.size <= wanted:
            found = self._catalogue.unseen(self._space.enumerate(), seen, wanted)
        else:
            children = self._children(parents, rng, 2 * wanted)
            found = self._catalogue.unseen(chain(earlier, children), seen, wanted)
        if not len(found):
            return None
        best = self._promising(found)
        return found.assignments[int(best[0]) if len(best) else 0]

    def _promising(self, found: Candidates) -> Sequence[int]:
        """Return the candidate of the highest expected hypervolume improvement, if any has one."""
        from moocore import is_nondominated

        costs = found.costs
        lessons, losses = self._lessons()
        waiting = [one for one in self._known.values() if one.open]
        mine = [o for o in self._known.values() if o.loss is not None and o.allowed]
        exact = ~np.isnan(costs).any(axis=0)
        rows = _rows([*lessons, *waiting], exact)
        asked = _asked(found, exact)
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
        return list(floor.best(variants / width, predict(asked), self._odds(found)))

    def _most_missed(self, found: Candidates) -> Array:
        """Return by how much each misses the limit it misses most, as a logarithm.

        Guesses count as high as they turn out four times in five.
        """
        shifts = [np.quantile(found, _CAUTION) if len(found) else 0 for found in self._surprises()]
        most: Array = (found.excess + shifts).max(axis=1, initial=-np.inf)
        return most

    def _odds(self, found: Candidates) -> Array:
        """Return how probably each candidate keeps to all limits; 0 where it is known not to.

        A guess is off by what guesses were off. A limit of which nothing is known beforehand is
        learned from what was told of it, once any missed it.
        """
        from scipy.special import ndtr

        odds = np.ones(len(found))
        for excess, off in zip(found.excess.T, self._surprises(), strict=True):
            if len(off) < _FEW:
                odds *= excess <= 0
            else:
                odds *= ndtr(-(excess + np.mean(off)) / max(float(np.std(off)), _LEAST_OFF))
        exact = ~np.isnan(found.costs).any(axis=0)
        known = self._limits.names if self._limits else ()
        for name in {name: None for one in self._known.values() for name in one.violations}:
            told = [one for one in self._known.values() if name in one.violations]
            excess = np.array([one.violations[name] for one in told])
            if name not in known and excess.max() > 0 and len(told) >= _FEW:
                within = fit(_rows(told, exact), 1 + excess)(_asked(found, exact)) <= 1
                odds *= np.maximum(within.mean(axis=1), 1e-3)
        return odds

    def _surprises(self) -> list[list[float]]:
        """Return for each known limit by how much guesses at it were exceeded, as logarithms."""
        found = []
        for column, name in enumerate(self._limits.names if self._limits else ()):
            guessed = self._limits is not None and name in self._limits.guessed
            told = [
                one  # of one that was rejected by the very guess nothing is told
                for one in self._known.values()
                if guessed and name in one.violations and one.excess[column] <= 0
            ]
            found.append([np.log1p(one.violations[name]) - one.excess[column] for one in told])
        return found

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
            child = parents[int(rng.integers(len(parents)))]
            mutated = False
            while not mutated or rng.random() < 0.3:
                child, mutated = self._space.mutate(child, rng), True
            yield child


def _rows(some: Sequence[_Known], exact: Any) -> Array:
    """Describe candidates to a surrogate: features, costs known of all, and which study."""
    features, costs = np.array([one.features for one in some]), [one.costs for one in some]
    return np.column_stack([features, np.array(costs)[:, exact], [one.earlier for one in some]])


def _asked(found: Candidates, exact: Any) -> Array:
    """Describe candidates as `_rows` does; they are of this study."""
    return np.column_stack([found.features, found.costs[:, exact], np.zeros(len(found))])


def _spread(samples: Array) -> Array:
    """Thin equally likely values (candidates, samples), ascending, out to `_VARIANTS`."""
    thinned: Array = samples.reshape(len(samples), _VARIANTS, -1).mean(axis=2)
    return thinned
