"""Steps from one valid assignment to another: what local and evolutionary search are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from search_spaces.axes import Assignment, Axis, Lattice, Scalar

if TYPE_CHECKING:
    import numpy as np

_CROSSOVER_ATTEMPTS = 32


def neighbours(lattice: Lattice, assignment: Mapping[str, Scalar]) -> Iterator[Assignment]:
    """Yield what one other choice on one axis leads to, as far as it is valid.

    Axes that become active by it take their first choice; those that become inactive are dropped.
    """
    for name in assignment:
        for choice in _others(lattice, assignment, name):
            changed = lattice.completed({**assignment, name: choice}, lambda axis: axis.choices[0])
            if not lattice.forbidden(changed):
                yield changed


def mutate(
    lattice: Lattice, assignment: Mapping[str, Scalar], rng: np.random.Generator
) -> Assignment:
    """Change one axis at random; `lattice` must hold another valid assignment.

    Axes that become active by it are drawn at random. Where the rules refuse every change tried,
    any other valid assignment is drawn.
    """
    names = list(assignment)
    for place in rng.permutation(len(names)).tolist():
        name = names[place]
        others = _others(lattice, assignment, name)
        for index in rng.permutation(len(others)).tolist():
            wanted = {**assignment, name: others[index]}
            changed = lattice.completed(wanted, lambda axis: _draw(axis, rng))
            if not lattice.forbidden(changed):
                return changed
    while (drawn := lattice.sample(rng)) == assignment:
        pass
    return drawn


def crossover(
    lattice: Lattice,
    first: Mapping[str, Scalar],
    second: Mapping[str, Scalar],
    rng: np.random.Generator,
) -> Assignment:
    """Take each axis from either parent, at even odds; draw what neither has.

    Where the rules refuse every mix tried, the child is a copy of `first`.
    """
    for _ in range(_CROSSOVER_ATTEMPTS):
        mixed = {**first, **second}
        mixed |= {name: value for name, value in first.items() if rng.random() < 0.5}
        child = lattice.completed(mixed, lambda axis: _draw(axis, rng))
        if not lattice.forbidden(child):
            return child
    return dict(first)


def _others(lattice: Lattice, assignment: Mapping[str, Scalar], name: str) -> list[Scalar]:
    return [choice for choice in lattice.axes[name].choices if choice != assignment[name]]


def _draw(axis: Axis, rng: np.random.Generator) -> Scalar:
    return axis.choices[int(rng.integers(len(axis.choices)))]
