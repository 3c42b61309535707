"""Features of the structure of graphs, compared with counts by hand."""

from __future__ import annotations

import numpy as np

from nas.search.path_features import PathFeatures

EDGES = [(0, 1), (0, 2), (1, 2)]  # the paths from 0 to 2: edge 1, and edges 0 and 2
KINDS = 3  # none, a, b: the sets of kinds are {a}, {b}, {a, b}


def features(*graphs: tuple[int, int, int]) -> list[list[float]]:
    found: list[list[float]] = PathFeatures(EDGES, KINDS)(np.array(graphs, dtype=np.intp)).tolist()
    return found


def test_operations_are_counted_along_the_paths() -> None:
    both, short, nothing = features((1, 2, 1), (1, 2, 0), (0, 0, 1))
    one_hot, counts, paths, most, least = both[:6], both[6:8], both[8], both[9:12], both[12:]
    assert one_hot == [1, 0, 0, 1, 1, 0]  # a, b, a
    assert (counts, paths) == ([2, 1], 2)
    assert (most, least) == ([2, 1, 2], [0, 0, 1])  # edges 0 and 2: two of a; edge 1: one of b
    # The path over edges 0 and 2 has a gap, so edge 0 counts for nothing.
    assert short == [0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    assert nothing == [0] * 9 + [-1] * 6


def test_graphs_that_differ_only_off_their_paths_are_the_same() -> None:
    first, other = features((1, 2, 0), (2, 2, 0))
    assert first == other
