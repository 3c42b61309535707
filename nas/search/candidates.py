"""Thousands of unseen candidates with their features, known costs and predicted excess."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.search.axis_features import AxisFeatures
from nas.search.interfaces import Array, Costs, Features, KnownLimits, Mask, Space
from search_spaces.axes import Assignment

_REMEMBERED = 20_000
"""Maximum number of assignments in the cache: mutations of the same front recur."""

_TINY = 1e-12


@dataclass(frozen=True)
class Candidates:
    """Distinct networks, one per row.

    Attributes:
        assignments: One assignment of each network.
        features: (candidates, features), the inputs of a surrogate that follow from the axes.
        costs: (candidates, costs), on their scales (see `on_scales`); NaN in columns that are not
            known.
        excess: (candidates, limits), predicted, as in `KnownLimits`.
    """

    assignments: Sequence[Assignment]
    features: Array
    costs: Array
    excess: Array

    def __len__(self) -> int:
        return len(self.assignments)

    @property
    def exact(self) -> Mask:
        """The costs that are known of every candidate, (costs,)."""
        return np.asarray(~np.isnan(self.costs).any(axis=0))

    def inputs(self, exact: Mask) -> Array:
        """Return the inputs of a surrogate, as `nas.search.history.surrogate_inputs` does.

        The last column is 0: the candidates belong to this study, not to an earlier one.

        Args:
            exact: (costs,), the columns of `costs` that are inputs.

        Returns:
            (candidates, inputs).
        """
        return np.column_stack([self.features, self.costs[:, exact], np.zeros(len(self))])


class Catalogue:
    """Computes features, costs and excess of assignments, with a cache.

    Args:
        space: The space of the assignments.
        linear: (costs,), the costs on a linear scale.
        costs: As in `nas.search.pareto.ParetoEngine`, like `features` and `limits`.
    """

    def __init__(
        self,
        space: Space,
        linear: Mask,
        costs: Costs | None,
        features: Features | None,
        limits: KnownLimits | None,
    ) -> None:
        self._space, self._linear, self._columns = space, linear, len(linear)
        self._exact, self._limits = costs, limits
        self._axes, self._more = AxisFeatures(space), features
        self._missing = len(limits.names) if limits else 0
        self._nothing = np.empty((0, self._missing + self._columns))
        self._digests: dict[tuple[Any, ...], str] = {}
        self._rows: dict[tuple[Any, ...], Array] = {}

    def describe(self, assignment: Assignment, architecture: Any) -> tuple[Array, Array, Array]:
        """Return features (features,), costs (costs,) and excess (limits,) of one assignment."""
        features, costs, excess = self._parts(self._described([assignment], [architecture]))
        return features[0], costs[0], excess[0]

    def unseen(
        self, assignments: Iterable[Assignment], seen: Container[str], wanted: int
    ) -> Candidates:
        """Return the first `wanted` distinct networks whose digest is not in `seen`, or fewer."""
        if len(self._rows) > _REMEMBERED:
            self._digests.clear()
            self._rows.clear()
        found: dict[str, tuple[tuple[Any, ...], Assignment]] = {}
        built: dict[tuple[Any, ...], Any] = {}
        for assignment in assignments:
            key = _key(assignment)
            if key not in self._digests:
                built[key] = self._space.architecture(assignment)
                self._digests[key] = built[key].digest
            digest = self._digests[key]
            if digest not in seen:
                found.setdefault(digest, (key, assignment))
            if len(found) == wanted:
                break
        new = {key: one for key, one in found.values() if key not in self._rows}
        for key in new.keys() - built.keys():  # in `seen` when its digest was cached
            built[key] = self._space.architecture(new[key])
        rows = self._described(list(new.values()), [built[key] for key in new])
        self._rows.update(zip(new, rows, strict=True))
        table = np.array([self._rows[key] for key, _ in found.values()] or self._nothing)
        return Candidates([one for _, one in found.values()], *self._parts(table))

    def _described(self, assignments: Sequence[Assignment], architectures: Sequence[Any]) -> Array:
        """Return excess, costs and features side by side, (assignments, columns)."""
        if not assignments:
            return self._nothing
        columns = [self._axes(assignments)]
        if self._more is not None:
            columns.append(self._more(assignments))
        excess = np.empty((len(assignments), 0))
        if self._limits is not None:
            excess = self._limits.excess(architectures)
        costs = np.full((len(assignments), self._columns), np.nan)
        if self._exact is not None:
            known = np.asarray(self._exact(architectures), dtype=np.float64)
            costs = on_scales(known, self._linear)
        return np.column_stack([excess, costs, *columns])

    def _parts(self, table: Array) -> tuple[Array, Array, Array]:
        start, end = self._missing, self._missing + self._columns
        return table[:, end:], table[:, start:end], table[:, :start]


def on_scales(values: Array, linear: Mask) -> Array:
    """Return values on the scales of their objectives.

    The scale is the natural logarithm, of at least 1e-12, or linear.

    Args:
        values: (..., objectives).
        linear: (objectives,), those whose values are returned unchanged.
    """
    found: Array = np.log(np.maximum(values, _TINY))
    found[..., linear] = values[..., linear]
    return found


def _key(assignment: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*assignment, *assignment.values())
