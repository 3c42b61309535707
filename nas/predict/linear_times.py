"""Times of operations from latencies of whole models, where operations cannot be timed alone.

A runtime such as ONNX Runtime fuses operations and changes memory layouts between them, so only
whole passes are timed. The latency of a model is taken as a sum over its operations, with four
coefficients for each kind: per operation, per multiply-add, per multiply-add with channels filled
up to whole vectors, and per byte moved. They are at least 0, and are fitted to the latencies of
models by least squares of the relative error. There are many coefficients for a few hundred models,
so each is drawn towards its value for all kinds together (ridge regression), as strongly as
cross-validation asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from nas.operation import Operation
from nas.predict.cost_model import Floats

_VECTOR = 16
"""Channels that are computed together: 512 bits of float32."""

_TERMS, _FOLDS = 4, 5

_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Numbers of models with the same weight as the common coefficients."""

_FEW = 8
"""Fewer channels, those of the image, are not computed in whole vectors."""

Kind = tuple[str, str, str]
"""Kind of an operation, its function (activations differ much in time), and whether it reads or
writes an image."""


@dataclass(frozen=True)
class LinearTimes:
    """Predicts the times of operations in a runtime.

    Attributes:
        batch: Images in a pass.
        coefficients: Kind -> `(4,)`.
        others: The coefficients of all kinds together, for those that no model had, `(4,)`.
    """

    batch: int
    coefficients: Mapping[Kind, Floats]
    others: Floats

    @classmethod
    def fit(cls, models: Sequence[Sequence[Operation]], times: Floats, batch: int) -> Self:
        """Fit to the operations of models, and the times of the models in any unit, `(n,)`."""
        kinds, sums = sums_by_kind(models, batch)
        scale = np.maximum(sums.sum(axis=1).max(axis=0), 1.0)
        shares = sums / scale / times[:, None, None]  # of which each model's should add up to 1
        strength = min(_STRENGTHS, key=lambda one: _held_out_error(shares, one))
        common, each = _fit(shares, strength)
        return cls(batch, dict(zip(kinds, each / scale, strict=True)), common / scale)

    def __call__(self, operations: Sequence[Operation]) -> Floats:
        """Return the predicted times of operations, `(n,)`, in the unit of the fitted times."""
        if not operations:
            return np.zeros(0)
        used = [self.coefficients.get(_kind(one), self.others) for one in operations]
        times: Floats = (np.array(used) * _terms(operations, self.batch)).sum(axis=1)
        return times


def sums_by_kind(models: Sequence[Sequence[Operation]], batch: int) -> tuple[list[Kind], Floats]:
    """Return all kinds of operations, and the terms of each model's added up, `(n, kinds, 4)`."""
    kinds = sorted({_kind(one) for operations in models for one in operations})
    column = {kind: index for index, kind in enumerate(kinds)}
    sums = np.zeros((len(models), len(kinds), _TERMS))
    for row, operations in enumerate(models):
        places = np.array([column[_kind(one)] for one in operations], dtype=np.intp)
        np.add.at(sums[row], places, _terms(operations, batch))
    return kinds, sums


def _kind(operation: Operation) -> Kind:
    image = "read" if operation.channels_in < _FEW else ""
    if not image and operation.channels_out < _FEW:
        image = "written"
    return operation.kind, operation.function, image


def _terms(operations: Iterable[Operation], batch: int) -> Floats:
    """Return the four terms of each operation, `(n, 4)`."""
    rows = [(1.0, one.macs, _filled_macs(one), one.bytes_moved(batch)) for one in operations]
    return np.array(rows, dtype=float).reshape(-1, _TERMS)


def _filled_macs(operation: Operation) -> float:
    """Return the multiply-adds with channels filled up to whole vectors, unless they are grouped.

    A depthwise convolution computes as many channels at once as others.
    """
    if operation.groups > 1:
        return float(operation.macs)
    filled = 1.0
    for channels in (operation.channels_in, operation.channels_out):
        filled *= -(-channels // _VECTOR) * _VECTOR / channels
    return operation.macs * filled


def _fit(shares: Floats, strength: float) -> tuple[Floats, Floats]:
    """Fit coefficients of at least 0 with which the shares of each model add up to 1.

    Args:
        shares: `(models, kinds, 4)`.
        strength: Number of models with the same weight as the common coefficients.

    Returns:
        The coefficients of all kinds together, `(4,)`, and those of each kind, `(kinds, 4)`.
    """
    from scipy.optimize import nnls

    count, kinds, _ = shares.shape
    common, _ = nnls(shares.sum(axis=1), np.ones(count))
    # A coefficient is drawn the more, the more it matters.
    drawn = np.diag(np.sqrt(strength * (shares**2).mean(axis=0)).ravel())
    rows = np.vstack([shares.reshape(count, -1), drawn])
    wanted = np.concatenate([np.ones(count), drawn @ np.tile(common, kinds)])
    each, _ = nnls(rows, wanted, maxiter=100 * rows.shape[1])
    return np.asarray(common), np.asarray(each).reshape(kinds, -1)


def _held_out_error(shares: Floats, strength: float) -> float:
    """Return the mean absolute relative error of models that are left out of the fit in turn."""
    fold, errors = np.arange(len(shares)) % _FOLDS, np.zeros(len(shares))
    for one in range(_FOLDS):
        _, each = _fit(shares[fold != one], strength)
        errors[fold == one] = (shares[fold == one] * each).sum(axis=(1, 2)) - 1
    return float(np.abs(errors).mean())
