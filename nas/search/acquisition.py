"""Expected hypervolume improvement where the costs are known and the loss is uncertain.

All objectives are minimised. The cost space up to the reference point is cut into disjoint boxes
b. In each box one loss a_b is attained: the lowest loss of a point of the front that costs no more
than the box. A candidate with the known costs c and the uncertain loss L improves the front in the
part of each box whose costs are at least c, and there by a_b - L. Its expected hypervolume
improvement (Emmerich et al. 2006) is therefore

    EHVI = sum_b volume(b, where costs >= c) * E[max(0, a_b - L)],

where the expectation is the expected improvement (Mockus 1978) on the loss a_b. The sum is exact,
as in the box decompositions for several uncertain objectives (Daulton et al. 2020). Because the
loss alone is uncertain here, every expectation is one-dimensional.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nas.search.interfaces import Array, Indices

_BLOCK = 64
"""Candidates whose improvement is computed at once, in descending order of its upper bound."""

_CHUNK = 4_000_000
"""Largest number of pairs (candidate, box) that are computed at once. It limits the memory."""


@dataclass(frozen=True)
class BoxDecomposition:
    """The region that a front does not dominate, as disjoint boxes of the cost space.

    Attributes:
        low, high: (boxes, costs), the lower and upper corners; `low` may be -inf.
        attained: (boxes,), the loss a_b attained in each box, in descending order.
        costs, losses: (points, costs) and (points,), the front.
        reference: (costs + 1,), the reference point; its last element is a loss.
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

        Points are processed in ascending order of their loss. Each point takes, of the space that
        is left, the part that costs at least as much as the point. Its loss is the lowest that is
        attained there, because every later point has a higher loss.

        Args:
            costs: (points, costs).
            losses: (points,).
            reference: (costs + 1,), the reference point; its last element is a loss. Volume
                beyond it does not count.
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
        """Return the indices of the candidates with the highest acquisition, best first.

        The acquisition is the expected hypervolume improvement times the probability of feasibility
        (Schonlau et al. 1998). The result is exact, although few candidates are compared with all
        boxes: candidates are processed in descending order of an upper bound, until the bound of
        the next block is below the acquisitions found.

        Args:
            costs: (variants, candidates, costs), equally likely costs; one variant if the costs
                are known.
            losses: (candidates, quantiles), equally likely losses of each candidate.
            feasibility: (candidates,), the probability that a candidate satisfies all limits.
            count: Number of candidates to return; fewer are returned if fewer have a positive
                upper bound.
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
            found = self.expected_improvement(costs[:, block], losses[block])
            scores = np.append(scores, found * feasibility[block])
        chosen: Indices = order[np.argsort(-scores, kind="stable")[:count]]
        return chosen

    def _upper_bound(self, costs: Array, losses: Array) -> Array:
        """Return an upper bound of the expected hypervolume improvement, (candidates,).

        A front attains lower losses at higher costs, so a candidate's improvement on the attained
        loss is largest at its own costs. The bound is that improvement times the volume between
        these costs and the reference point.
        """
        gain = np.maximum(self.attained_at(costs)[:, None] - losses, 0).mean(axis=1)
        bound: Array = gain * np.maximum(self.reference[:-1] - costs, 0).prod(axis=1)
        return bound

    def attained_at(self, costs: Array) -> Array:
        """Return the loss that the front attains at `costs` (n, costs): (n,)."""
        affordable = (self.costs[None] <= costs[:, None]).all(axis=2)
        attained: Array = np.where(affordable, self.losses, self.reference[-1])
        lowest: Array = attained.min(axis=1, initial=self.reference[-1])
        return lowest

    def expected_improvement(self, costs: Array, losses: Array) -> Array:
        """Return the expected hypervolume improvement of each candidate, (candidates,).

        Args:
            costs: (variants, candidates, costs), equally likely costs.
            losses: (candidates, quantiles), equally likely losses of each candidate.
        """
        # Boxes of the same attained loss are neighbours and share one expectation, so their
        # volumes are summed first.
        levels, starts = np.unique(-self.attained, return_index=True)
        rows = max(1, _CHUNK // len(self.attained))
        blocks = []
        for start in range(0, len(losses), rows):
            volumes = self._volumes(costs[:, start : start + rows])
            per_level = np.add.reduceat(volumes, starts, axis=0)
            gain = -levels[:, None, None] - losses[start : start + rows]
            blocks.append((per_level * np.maximum(gain, 0).mean(axis=2)).sum(axis=0))
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _volumes(self, costs: Array) -> Array:
        """Return the mean volume of each box where costs are at least `costs` of a variant.

        Args:
            costs: (variants, candidates, costs).

        Returns:
            (boxes, candidates).
        """
        uncertain = np.flatnonzero((costs != costs[0]).any(axis=(0, 1)))
        # The mean of a product is that of its factors if at most one of them varies.
        joint = uncertain if len(uncertain) > 1 else uncertain[:0]
        volumes = np.ones((len(self.attained), costs.shape[1]))
        for axis in np.setdiff1d(np.arange(costs.shape[2]), joint):
            volumes *= self._sides(axis, costs[..., axis])
        if len(joint):
            total = np.zeros_like(volumes)
            for variant in costs:
                total += math.prod(self._sides(axis, variant[None, :, axis]) for axis in joint)
            volumes *= total / len(costs)
        return volumes

    def _sides(self, axis: int, costs: Array) -> Array:
        """Return the mean length of each box along an axis where costs are at least `costs`.

        Args:
            axis: Column of the corners.
            costs: (variants, candidates), along that axis.

        Returns:
            (boxes, candidates).
        """
        values, low, high = self._edges[axis]
        # Few values occur in many corners, and rows are copied faster than they are computed.
        cut = np.maximum(values[:, None, None], costs).mean(axis=1)
        sides: Array = cut[high]
        sides -= cut[low]
        return sides

    @cached_property
    def _edges(self) -> list[tuple[Array, Indices, Indices]]:
        """For each axis: the values of all corners, and the places of each box's low and high."""
        found = []
        for low, high in zip(self.low.T, self.high.T, strict=True):
            values, places = np.unique(np.append(low, high), return_inverse=True)
            found.append((values, places[: len(low)], places[len(low) :]))
        return found


def _outside(low: Array, high: Array, corner: Array) -> tuple[Array, Array]:
    """Remove from boxes the region above `corner` on every axis; return the rest as boxes."""
    lows, highs = [], []
    for axis in range(len(corner)):
        part_low, part_high = low.copy(), high.copy()
        part_low[:, :axis] = np.maximum(low[:, :axis], corner[:axis])
        part_high[:, axis] = np.minimum(high[:, axis], corner[axis])
        kept = part_low[:, axis] < part_high[:, axis]
        lows.append(part_low[kept])
        highs.append(part_high[kept])
    return np.concatenate(lows), np.concatenate(highs)
