"""How much a candidate may add to a front when its costs are known and only its loss is not.

Seen from the cost axes, a front is a floor: at every budget, the lowest loss that some point within
that budget attains. A candidate improves the floor at all budgets it fits in, by as much as its
loss lies below. So its expected hypervolume improvement (Emmerich et al. 2006) is its expected
improvement over the floor (Mockus 1978), integrated over those budgets: exact, and one-dimensional
in what is uncertain. All axes are minimised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nas.search.interfaces import Array

Indices = npt.NDArray[np.intp]

_BLOCK = 64
"""Candidates measured at once, from the most promising on."""

_CHUNK = 4_000_000
"""Numbers per block of candidates and boxes: bounds the memory, and stays near the cache."""


@dataclass(frozen=True)
class Floor:
    """The lowest loss attained at every budget, as disjoint boxes of the cost space.

    Attributes:
        low, high: (boxes, costs), the corners; `low` may be -inf.
        level: (boxes,), the loss attained throughout a box, in descending order.
        costs, losses: (points, costs) and (points,), the points it is made of.
        reference: (costs + 1,), the corner beyond which nothing counts, the loss last.
    """

    low: Array
    high: Array
    level: Array
    costs: Array
    losses: Array
    reference: Array

    @classmethod
    def of(cls, costs: Array, losses: Array, reference: Array) -> Floor:
        """Cut the cost space up to `reference` into boxes of one attained loss each.

        Args:
            costs: (points, costs).
            losses: (points,).
            reference: (costs + 1,): the corner beyond which nothing counts, the loss last.
        """
        low, high = np.full((1, costs.shape[1]), -np.inf), reference[None, :-1]
        parts: list[tuple[Array, Array, float]] = []
        for index in np.argsort(losses, kind="stable"):
            if losses[index] >= reference[-1]:
                break
            inside = (high > costs[index]).all(axis=1)
            if inside.any():
                hit_low, hit_high = low[inside], high[inside]
                parts.append((np.maximum(hit_low, costs[index]), hit_high, float(losses[index])))
                rest_low, rest_high = _outside(hit_low, hit_high, costs[index])
                low = np.concatenate([low[~inside], rest_low])
                high = np.concatenate([high[~inside], rest_high])
        parts.append((low, high, float(reference[-1])))
        parts.reverse()
        return cls(
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            np.concatenate([np.full(len(part[0]), part[2]) for part in parts]),
            costs,
            losses,
            reference,
        )

    def best(self, costs: Array, losses: Array, weights: Array, count: int = 1) -> Indices:
        """Return the candidates of the highest weighted expected improvement, best first.

        Exact, yet few candidates are measured against all boxes: none improves the floor anywhere
        by more than at its own costs, which bounds what it can add.

        Args:
            costs: (variants, candidates, costs), equally likely: one variant if they are known.
            losses: (candidates, samples), equally likely values of the loss of each.
            weights: (candidates,), from 0 to 1, e.g. how probably a candidate is allowed.
            count: How many to return; fewer where no other may improve at all.
        """
        bound = weights * np.mean([self._at_most(variant, losses) for variant in costs], axis=0)
        order = np.argsort(-bound, kind="stable")
        order = order[bound[order] > 0]
        scores = np.zeros(0)
        for start in range(0, len(order), _BLOCK):
            if len(scores) >= count and np.sort(scores)[-count] >= bound[order[start]]:
                break
            block = order[start : start + _BLOCK]
            found = [self.improvement(variant[block], losses[block]) for variant in costs]
            scores = np.append(scores, np.mean(found, axis=0) * weights[block])
        chosen: Indices = order[np.argsort(-scores, kind="stable")[:count]]
        return chosen

    def _at_most(self, costs: Array, losses: Array) -> Array:
        """Return what no expected improvement exceeds, (candidates,)."""
        gain = np.maximum(self.at(costs)[:, None] - losses, 0).mean(axis=1)
        bound: Array = gain * np.maximum(self.reference[:-1] - costs, 0).prod(axis=1)
        return bound

    def at(self, costs: Array) -> Array:
        """Return the loss attained at each of the budgets `costs` (budgets, costs)."""
        within = (self.costs[None] <= costs[:, None]).all(axis=2)
        attained: Array = np.where(within, self.losses, self.reference[-1])
        lowest: Array = attained.min(axis=1, initial=self.reference[-1])
        return lowest

    def improvement(self, costs: Array, losses: Array) -> Array:
        """Return the expected hypervolume improvement of each candidate, (candidates,).

        Args:
            costs: (candidates, costs), known.
            losses: (candidates, samples), equally likely values of the loss of each.
        """
        levels, starts = np.unique(-self.level, return_index=True)
        rows = max(1, _CHUNK // len(self.level))
        blocks = []
        for start in range(0, len(costs), rows):
            volume = self._volume(costs[start : start + rows])
            room = np.add.reduceat(volume, starts, axis=1)
            gain = -levels[None, :, None] - losses[start : start + rows, None, :]
            blocks.append((room * np.maximum(gain, 0).mean(axis=2)).sum(axis=1))
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _volume(self, costs: Array) -> Array:
        """Return how much of each box each candidate fits in, (candidates, boxes)."""
        volume = np.ones((len(costs), len(self.level)))
        for axis in range(costs.shape[1]):
            side = self.high[:, axis] - np.maximum(self.low[:, axis], costs[:, axis, None])
            volume *= np.maximum(side, 0, out=side)
        return volume


def _outside(low: Array, high: Array, corner: Array) -> tuple[Array, Array]:
    """Cut boxes to what does not lie above `corner`, as disjoint boxes."""
    lows, highs = [], []
    for axis in range(len(corner)):
        part_low, part_high = low.copy(), high.copy()
        part_low[:, :axis] = np.maximum(low[:, :axis], corner[:axis])
        part_high[:, axis] = np.minimum(high[:, axis], corner[axis])
        kept = part_low[:, axis] < part_high[:, axis]
        lows.append(part_low[kept])
        highs.append(part_high[kept])
    return np.concatenate(lows), np.concatenate(highs)
