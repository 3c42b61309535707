"""The feature vectors by which a surrogate sees the assignments of a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from nas.search.interfaces import Array, Space

_INACTIVE: Any = object()
"""Stands for the choice of an axis that is not active."""


class AxisFeatures:
    """Encodes assignments of a space as vectors; an axis is encoded by its Optuna distribution.

    - Range of integers: two columns, the value and whether the axis is active. Where the axis is
      not active, the value is the middle of the range.
    - Other positive numbers: the same with the logarithm of the value.
    - Anything else: one-hot, one column per choice. All are 0 where the axis is not active.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._columns: dict[str, slice] = {}
        self._defaults: list[float] = []
        self._rows: dict[tuple[str, Any], tuple[slice, Array]] = {}
        self._orders: dict[str, Callable[[Any], Array]] = {}
        for name, distribution in space.distributions().items():
            encode, default = _encoding(distribution)
            start = len(self._defaults)
            self._columns[name] = slice(start, start + len(default))
            self._defaults += default
            self._orders[name] = encode

    def __call__(self, assignments: Sequence[Mapping[str, Any]]) -> Array:
        """Return (assignments, features)."""
        table = np.tile(np.array(self._defaults, dtype=np.float64), (len(assignments), 1))
        for name in dict.fromkeys(chain.from_iterable(assignments)):
            # By axis, not by assignment: thousands of them are encoded for each proposal.
            given = [one.get(name, _INACTIVE) for one in assignments]
            codes = {value: self._row(name, value) for value in set(given) - {_INACTIVE}}
            where = next(iter(codes.values()))[0]
            rows = np.array([self._defaults[where], *(row for _, row in codes.values())])
            place = {_INACTIVE: 0} | {value: number for number, value in enumerate(codes, start=1)}
            table[:, where] = rows[[place[value] for value in given]]
        return table

    def _row(self, name: str, value: Any) -> tuple[slice, Array]:
        key = (name, value)
        if key not in self._rows:
            ((parameter, stored),) = self._space.to_optuna({name: value}).items()
            self._rows[key] = (self._columns[parameter], self._orders[parameter](stored))
        return self._rows[key]


def _encoding(distribution: Any) -> tuple[Callable[[Any], Array], list[float]]:
    """Return a function from choice to columns, and the columns where the axis is not active."""
    choices = getattr(distribution, "choices", None)
    if choices is None:
        low, high = float(distribution.low), float(distribution.high)
        return lambda value: np.array([float(value), 1.0]), [(low + high) / 2, 0.0]
    if all(type(choice) in (int, float) and choice > 0 for choice in choices):
        middle = float(np.mean(np.log(choices)))
        return lambda value: np.array([float(np.log(value)), 1.0]), [middle, 0.0]
    places = {choice: place for place, choice in enumerate(choices)}
    return lambda value: np.eye(len(places))[places[value]], [0.0] * len(places)
