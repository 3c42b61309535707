"""A table of made-up losses, for tests of searches."""

from __future__ import annotations

from functools import cache

from search_spaces.space import SearchSpace
from studies.bench.tables import Table, TableEntry


@cache
def made_table() -> Table:
    """Nine epochs of a made-up loss for each member of a space."""
    space, entries = SearchSpace.load("table"), {}
    for assignment in space.enumerate():
        digest = space.architecture(assignment).digest
        level, cost = (1 + int(digest[at : at + 4], 16) / 65536 for at in (0, 4))
        losses = tuple(level + 2.0 / epoch for epoch in range(1, 10))
        entries[digest] = TableEntry(digest, assignment, (cost,), losses, (cost,) * 9)
    return Table("made up", space, ("loss", "cost"), entries)
