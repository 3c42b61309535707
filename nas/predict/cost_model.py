"""A model of an operation's time inside a network, fitted to operations timed on this device.

Each kind of operation has a linear cost model, time = a + b x MACs + c x bytes: launch, arithmetic
and memory traffic. Gradient-boosted trees predict the logarithm of measured over linear time, since
kernels are faster for some shapes than for others. Trees interpolate between shapes that were
measured, and the linear model extrapolates beyond them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from nas.operation import Operation
from profiling.kinds import OPERATION_KINDS
from search_spaces.architecture import CHOICES
from search_spaces.sizes import area, sides

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

Floats = NDArray[np.float64]

_FUNCTIONS = ("", *CHOICES["activation"], "sigmoid")
_FEW = 5  # fewer operations of a kind get the linear model of all kinds
_LEAST = 1e-7  # in passes of `original`; below the resolution of the clock
_SHAPE, _COUNTS = 10, 5  # columns of `features`


def features(operations: Sequence[Operation], batch: int) -> Floats:
    """Return the features of operations, `(n, 17)`.

    There are ten columns of kind and shape, five of counts (MACs, elements in, elements out,
    weights, bytes), and two of the channels that remain in the last vector of 16 (SIMD).
    """
    shapes = [
        (OPERATION_KINDS.index(o.kind), _FUNCTIONS.index(o.function), *_shape(o))
        for o in operations
    ]
    counts = [
        (o.macs, o.elements_in, o.elements_out, o.weights, o.bytes_moved(batch)) for o in operations
    ]
    shape = np.array(shapes, dtype=float).reshape(-1, _SHAPE)
    count = np.array(counts, dtype=float).reshape(-1, _COUNTS)
    return np.hstack([shape, count, shape[:, 2:4] % 16])


def _shape(o: Operation) -> tuple[float, ...]:
    """Return channels, sides, kernel, stride and groups, and whether a side is odd.

    The side of a map that is not square is that of a square of the same area.
    """
    size_in, size_out = math.sqrt(area(o.size_in)), math.sqrt(area(o.size_out))
    odd = max(side % 2 for side in sides(o.size_in))
    return o.channels_in, o.channels_out, size_in, size_out, o.kernel, o.stride, o.groups, odd


@dataclass(frozen=True)
class OperationTimes:
    """Predicts the times of operations: a linear model of each kind times a factor from trees.

    Attributes:
        batch: Images in a pass.
        coefficients: (kinds + 1, 3), (a, b, c) of each kind; in the last row of all kinds together.
        trees: Predict the logarithm of the factor from scaled `features`.
    """

    batch: int
    coefficients: Floats
    trees: HistGradientBoostingRegressor

    @classmethod
    def fit(cls, operations: Sequence[Operation], times: Floats, batch: int) -> Self:
        """Fit to operations and their times, `(n,)`, in any unit.

        An operation that was timed in several places has their median, with their total weight.
        """
        from sklearn.ensemble import HistGradientBoostingRegressor

        seen: dict[Operation, list[float]] = {}
        for operation, time in zip(operations, times, strict=True):
            seen.setdefault(operation, []).append(max(time, _LEAST))
        known = features(list(seen), batch)
        middle = np.array([np.median(taken) for taken in seen.values()])
        coefficients = np.array(
            [_linear_fit(known, middle, kind) for kind in range(len(OPERATION_KINDS) + 1)]
        )
        trees = HistGradientBoostingRegressor(
            max_iter=300, learning_rate=0.08, min_samples_leaf=5, random_state=0
        )
        # Long operations matter more for the sum, but most are short: the square root of the time
        # is a compromise.
        weights = np.sqrt(middle) * [len(taken) for taken in seen.values()]
        with _one_thread():
            trees.fit(
                _scaled(known), np.log(middle / _linear(coefficients, known)), sample_weight=weights
            )
        return cls(batch, coefficients, trees)

    def __call__(self, operations: Sequence[Operation]) -> Floats:
        """Return the predicted times of operations, `(n,)`, in the unit of the fitted times."""
        if not operations:
            return np.zeros(0)
        known = features(operations, self.batch)
        with _one_thread():
            factors: Floats = np.exp(self.trees.predict(_scaled(known)))
        return factors * _linear(self.coefficients, known)


def _one_thread() -> AbstractContextManager[object]:
    """Limit OpenMP to one thread: on busy cores several take a minute instead of two seconds."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="openmp")
    return limits


def _scaled(known: Floats) -> Floats:
    """Return features for trees: logarithms of the counts, and the logarithm of MACs per byte."""
    counts = np.log1p(known[:, _SHAPE : _SHAPE + _COUNTS])
    intensity = counts[:, :1] - counts[:, -1:]
    return np.hstack([known[:, :_SHAPE], counts, known[:, _SHAPE + _COUNTS :], intensity])


def _linear_fit(known: Floats, times: Floats, kind: int) -> Floats:
    """Fit a, b, c >= 0 by least squares of the relative error, for one kind or all of them.

    This is the non-negative least squares problem (a + b x MACs + c x bytes) / time = 1. The terms
    are scaled to a maximum of 1 first, because MACs and bytes are up to 10^9 times the constant. A
    `kind` after the last means all kinds.
    """
    from scipy.optimize import nnls

    rows = known[:, 0] == kind
    if rows.sum() < _FEW:
        rows = np.ones(len(known), dtype=bool)
    terms = _terms(known[rows])
    scale = np.maximum(terms.max(axis=0), 1.0)
    coefficients, _ = nnls(terms / scale / times[rows, None], np.ones(rows.sum()))
    return np.asarray(coefficients / scale)


def _linear(coefficients: Floats, known: Floats) -> Floats:
    values: Floats = (coefficients[known[:, 0].astype(int)] * _terms(known)).sum(axis=1)
    return np.maximum(values, _LEAST)


def _terms(known: Floats) -> Floats:
    macs, moved = known[:, _SHAPE], known[:, _SHAPE + _COUNTS - 1]
    return np.column_stack([np.ones(len(known)), macs, moved])
