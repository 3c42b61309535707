"""Features of a network's structure, made by machine from its graph of operations.

Two networks behave alike if their input reaches their output by similar paths, not if the same
edge has the same operation. The features are counts of operations along paths, as in GRAF
(Kadlecova et al. 2024, *Surprisingly Strong Performance Prediction with Neural Graph Features*)
and in the path encoding of BANANAS (White et al. 2021). No operation has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from nas.search.interfaces import Array


class PathFeatures:
    """Describes graphs that have the same nodes, with one operation on each edge.

    Args:
        edges: Pairs (from, to) of node numbers; a path leads from the smallest to the largest one.
        kinds: Number of kinds of operations. Kind 0 is no connection.
    """

    def __init__(self, edges: Sequence[tuple[int, int]], kinds: int) -> None:
        self._kinds = kinds
        paths = list(_paths(edges, min(min(edges)), max(max(edges))))
        self._on_path = np.array([[edge in path for edge in range(len(edges))] for path in paths])
        members = range(1, kinds)
        subsets = [one for size in members for one in combinations(members, size)]
        self._subsets = np.array([[kind in one for kind in range(kinds)] for one in subsets])

    def __call__(self, operations: npt.NDArray[np.intp]) -> Array:
        """Return the features of graphs, (graphs, features).

        They are: for each edge on a path without a gap its operation, one-hot; the number of such
        edges of each kind; the number of such paths; and for each set of kinds the largest and the
        smallest number of its operations on such a path, -1 where there is no path.

        Args:
            operations: (graphs, edges), the kind of the operation on each edge.
        """
        gaps = self._on_path.astype(np.intp) @ (operations == 0).T
        complete = gaps.T == 0  # (graphs, paths)
        used = (complete[:, :, None] & self._on_path).any(axis=1)
        kinds = np.arange(1, self._kinds)
        one_hot = used[:, :, None] & (operations[:, :, None] == kinds)
        # (graphs, edges, subsets): whether the operation of an edge is in a set of kinds
        inside = self._subsets.T[operations].astype(np.float64)
        counts = np.einsum("pe,ges->gps", self._on_path.astype(np.float64), inside)
        most = np.where(complete[:, :, None], counts, -1).max(axis=1)
        least = np.where(complete[:, :, None], counts, np.inf).min(axis=1)
        return np.column_stack(
            [
                one_hot.reshape(len(operations), -1),
                one_hot.sum(axis=1),
                complete.sum(axis=1),
                most,
                np.where(np.isinf(least), -1, least),
            ]
        )


def _paths(
    edges: Sequence[tuple[int, int]], start: int, end: int, taken: tuple[int, ...] = ()
) -> Sequence[tuple[int, ...]]:
    """Return all paths from one node to another, as positions in `edges`."""
    if start == end:
        return [taken]
    found: list[tuple[int, ...]] = []
    for place, (begin, onwards) in enumerate(edges):
        if begin == start:
            found += _paths(edges, onwards, end, (*taken, place))
    return found
