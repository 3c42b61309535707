"""Expected hypervolume improvement where the costs are known and the loss is uncertain.

A front dominates the points that are no better on any axis. The region that it leaves undominated,
up to a reference point, is cut into boxes of the cost space with one attained loss each: the lowest
loss of a point of the front that costs no more. A candidate of known costs improves the front in
the part of each box that costs at least as much as it does, by as much as its loss lies below the
attained one. So its expected hypervolume improvement (Emmerich et al. 2006) is a sum over boxes of
that volume times its expected improvement on the attained loss (Mockus 1978). The sum is exact, as
in the box decompositions for several uncertain objectives (Daulton et al. 2020), but here one
objective alone is uncertain, so each expectation is one-dimensional. All axes are minimised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.search.interfaces import Array, Indices

_BLOCK = 64
"""Candidates whose improvement is computed at once, those of the highest upper bound first."""

_CHUNK = 4_000_000
"""Numbers per block of candidates and boxes: bounds the memory, and stays near the cache."""


@dataclass(frozen=True)
class BoxDecomposition:
    """The region that a front does not dominate, as disjoint boxes of the cost space.

    Attributes:
        low, high: (boxes, costs), corners; `low` may be -inf.
        attained: (boxes,), the loss attained throughout a box, in descending order.
        costs, losses: (points, costs) and (points,), the front.
        reference: (costs + 1,), the reference point, the loss last.
    """

    low: Array
    high: Array
    attained: Array
    costs: Array
    losses: Array
    reference: Array

    @classmethod
    def of(cls, costs: Array, losses: Array, reference: Array) -> BoxDecomposition:
        """Cut the cost space up to `reference` into boxes of one attained loss each.

        Points are taken from the lowest loss on: what a point can afford of the space that is left
        has its loss, and no later point attains a lower one there.

        Args:
            costs: (points, costs).
            losses: (points,).
            reference: (costs + 1,), beyond which no volume counts, the loss last.
        """
        low, high = np.full((1, costs.shape[1]), -np.inf), reference[None, :-1]
        parts: list[tuple[Array, Array, float]] = []
        for index in np.argsort(losses, kind="stable"):
            if losses[index] >= reference[-1]:
                break
            reached = (high > costs[index]).all(axis=1)
            if reached.any():
                cut_low, cut_high = low[reached], high[reached]
                parts.append((np.maximum(cut_low, costs[index]), cut_high, float(losses[index])))
                rest_low, rest_high = _outside(cut_low, cut_high, costs[index])
                low = np.concatenate([low[~reached], rest_low])
                high = np.concatenate([high[~reached], rest_high])
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

    def best(self, costs: Array, losses: Array, feasibility: Array, count: int = 1) -> Indices:
        """Return the candidates of the highest constrained improvement, best first.

        It is the expected hypervolume improvement times the probability of feasibility (Schonlau
        et al. 1998). Exact, yet few candidates are compared with all boxes: no candidate improves
        the attained loss anywhere by more than at its own costs, which bounds its improvement.

        Args:
            costs: (variants, candidates, costs), equally likely: one variant if they are known.
            losses: (candidates, quantiles), equally likely values of the loss of each.
            feasibility: (candidates,), the probability that a candidate keeps to all limits.
            count: How many to return; fewer where no other may improve at all.
        """
        bounds = [self._upper_bound(variant, losses) for variant in costs]
        bound = feasibility * np.mean(bounds, axis=0)
        order = np.argsort(-bound, kind="stable")
        order = order[bound[order] > 0]
        scores = np.zeros(0)
        for start in range(0, len(order), _BLOCK):
            if len(scores) >= count and np.sort(scores)[-count] >= bound[order[start]]:
                break
            block = order[start : start + _BLOCK]
            found = [self.expected_improvement(one[block], losses[block]) for one in costs]
            scores = np.append(scores, np.mean(found, axis=0) * feasibility[block])
        chosen: Indices = order[np.argsort(-scores, kind="stable")[:count]]
        return chosen

    def _upper_bound(self, costs: Array, losses: Array) -> Array:
        """Return what no expected hypervolume improvement exceeds, (candidates,)."""
        gain = np.maximum(self.attained_at(costs)[:, None] - losses, 0).mean(axis=1)
        bound: Array = gain * np.maximum(self.reference[:-1] - costs, 0).prod(axis=1)
        return bound

    def attained_at(self, costs: Array) -> Array:
        """Return the lowest loss of a point that costs no more, for `costs` (n, costs): (n,)."""
        affordable = (self.costs[None] <= costs[:, None]).all(axis=2)
        attained: Array = np.where(affordable, self.losses, self.reference[-1])
        lowest: Array = attained.min(axis=1, initial=self.reference[-1])
        return lowest

    def expected_improvement(self, costs: Array, losses: Array) -> Array:
        """Return the expected hypervolume improvement of each candidate, (candidates,).

        Args:
            costs: (candidates, costs), known.
            losses: (candidates, quantiles), equally likely values of the loss of each.
        """
        # Boxes of one attained loss share an expectation; they stand together.
        levels, starts = np.unique(-self.attained, return_index=True)
        rows = max(1, _CHUNK // len(self.attained))
        blocks = []
        for start in range(0, len(costs), rows):
            volumes = self._volumes(costs[start : start + rows])
            per_level = np.add.reduceat(volumes, starts, axis=1)
            gain = -levels[None, :, None] - losses[start : start + rows, None, :]
            blocks.append((per_level * np.maximum(gain, 0).mean(axis=2)).sum(axis=1))
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _volumes(self, costs: Array) -> Array:
        """Return the part of each box that costs no less than a candidate, (candidates, boxes)."""
        volumes = np.ones((len(costs), len(self.attained)))
        for axis in range(costs.shape[1]):
            side = self.high[:, axis] - np.maximum(self.low[:, axis], costs[:, axis, None])
            volumes *= np.maximum(side, 0, out=side)
        return volumes


def _outside(low: Array, high: Array, corner: Array) -> tuple[Array, Array]:
    """Cut from boxes what lies above `corner` on every axis; return the rest, as disjoint boxes."""
    lows, highs = [], []
    for axis in range(len(corner)):
        part_low, part_high = low.copy(), high.copy()
        part_low[:, :axis] = np.maximum(low[:, :axis], corner[:axis])
        part_high[:, axis] = np.minimum(high[:, axis], corner[axis])
        kept = part_low[:, axis] < part_high[:, axis]
        lows.append(part_low[kept])
        highs.append(part_high[kept])
    return np.concatenate(lows), np.concatenate(highs)
