"""A table of learning curves for tests of the benchmark of searches."""

from __future__ import annotations

from search_spaces.space import SearchSpace
from studies.bench.tables import Row, Table


def made_up_curves() -> Table:
    """Return nine epochs of a made-up loss for each member of a space."""
    space, rows = SearchSpace.load("table"), {}
    for assignment in space.enumerate():
        digest = space.architecture(assignment).digest
        level, cost = (1 + int(digest[at : at + 4], 16) / 65536 for at in (0, 4))
        losses = tuple(level + 2.0 / epoch for epoch in range(1, 10))
        rows[digest] = Row(digest, assignment, (cost,), losses, (cost,) * 9)
    return Table("made up", space, ("loss", "cost"), rows)
