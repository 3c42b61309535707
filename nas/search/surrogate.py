"""Predict a positive quantity of unseen architectures, with its uncertainty.

A Gaussian process on the logarithm of the quantity: Matern 5/2 with a length for every feature, so
that what matters is told from what does not, plus a linear term for what follows the logarithms of
sizes and costs. The width of a prediction follows how well the points around it are predicted from
all others: spaces have regions that are flat and regions that are rough. A fit is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.search.interfaces import Array, Space

Predict = Callable[[Array], Array]

SAMPLES = 16
"""Equally likely values a prediction consists of: the middles of as many slices of its law."""

_CHOSEN_ON = 100
"""Hyperparameters are chosen on at most so many points: the time of a fit grows with their cube."""

_STEPS = 15
"""Steps of that choice: more change the predictions little."""

_NOISE = 1e-2
"""Expected share of noise in the variance."""

_SQUARINGS = 4
"""By the correlation, so often squared, known points speak for the surprises around a candidate."""

_TINY = 1e-12


def fit(features: Array, values: Array) -> Predict:
    """Learn `values` (points,), positive, from `features` (points, features).

    Returns:
        Features of candidates -> (candidates, SAMPLES), equally likely values of each, ascending.
    """
    from scipy.linalg import cho_solve, solve_triangular
    from scipy.linalg.lapack import dtrtri
    from scipy.special import ndtri

    centre, spread = features.mean(axis=0), features.std(axis=0)
    varies = spread > 1e-9
    target = np.log(np.maximum(values, _TINY))
    mean, width = target.mean(), max(float(target.std()), _TINY)
    known = (features[:, varies] - centre[varies]) / spread[varies]
    standard = (target - mean) / width
    chosen = np.random.default_rng(0).permutation(len(known))[:_CHOSEN_ON]
    law = _Law.likeliest(known[chosen], standard[chosen])
    factor = law.factor(known)
    weights = cho_solve((factor, True), standard)
    variance = float(standard @ weights) / len(known)
    # Squares of what each point's own left-one-out prediction missed, in units of its variance.
    root = dtrtri(factor, lower=1)[0]  # of the inverse, whose diagonal is all that is needed
    precision = np.einsum("ij,ij->j", root, root)
    surprise = weights**2 / (precision * max(variance, _TINY))
    slices = ndtri((np.arange(SAMPLES) + 0.5) / SAMPLES)

    def predict(candidates: Array) -> Array:
        wanted = (candidates[:, varies] - centre[varies]) / spread[varies]
        near = law.matern(wanted, known)
        cross = near + law.line(wanted, known)
        explained = solve_triangular(factor, cross.T, lower=True)
        left = law.prior(wanted) - (explained**2).sum(axis=0)
        for _ in range(_SQUARINGS):
            near *= near
        local = (near @ surprise + 0.01) / (near.sum(axis=1) + 0.01)
        deviation = np.sqrt(variance * local * np.maximum(left, _TINY))
        samples: Array = mean + width * ((cross @ weights)[:, None] + deviation[:, None] * slices)
        return np.exp(np.clip(samples, -700, 700))

    return predict


@dataclass(frozen=True)
class _Law:
    """What points have in common, up to one scale: all parameters as logarithms.

    Attributes:
        rates: (features,), one over the length of each.
        linear: Weight of the linear term.
        noise: Variance of what no feature explains.
    """

    rates: Array
    linear: float
    noise: float

    @classmethod
    def likeliest(cls, points: Array, values: Array) -> _Law:
        """Choose by marginal likelihood, under broad priors that favour few short lengths."""
        from scipy.optimize import minimize

        count = points.shape[1]
        usual = np.append(np.full(count, -1 - 0.5 * np.log(max(1, count))), [0, np.log(_NOISE)])
        loose = np.append(np.ones(count), [4, 4])
        squares = (points[:, None, :] - points[None, :, :]).reshape(-1, count) ** 2

        def misfit(theta: Array) -> tuple[float, Array]:
            value, slope = cls.of(theta).misfit(points, values, squares)
            away = (theta - usual) / loose
            return value + 0.5 * float(away @ (theta - usual)), slope + away

        bounds = [(-7, 2)] * count + [(-8, 5), (np.log(1e-5), 1)]
        found = minimize(
            misfit, usual, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}
        )
        return cls.of(found.x)

    @classmethod
    def of(cls, theta: Array) -> _Law:
        return cls(theta[:-2], float(theta[-2]), float(theta[-1]))

    def covariance(self, first: Array, second: Array) -> Array:
        """Return (first, second) without noise."""
        return self.matern(first, second) + self.line(first, second)

    def line(self, first: Array, second: Array) -> Array:
        """Return the linear term, (first, second)."""
        return self._weight() * (first @ second.T)

    def matern(self, first: Array, second: Array) -> Array:
        """Return the correlation, (first, second), by distance alone."""
        rates = np.exp(self.rates)
        one, other = first * rates, second * rates
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab: a matrix product is several times faster than pairs.
        distance = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
        # In place from here on: a million pairs leave the cache with every new array.
        np.sqrt(np.multiply(np.maximum(distance, 0, out=distance), 5, out=distance), out=distance)
        near: Array = distance / 3
        near += 1
        near *= distance
        near += 1
        near *= np.exp(np.negative(distance, out=distance), out=distance)
        return near

    def prior(self, points: Array) -> Array:
        """Return the variance of each point, noise included, before anything is known."""
        total: Array = 1 + np.exp(self.noise) + self._weight() * (points**2).sum(axis=1)
        return total

    def factor(self, points: Array) -> Array:
        """Return the Cholesky factor of the covariance of noisy points."""
        full = self.covariance(points, points)
        full[np.diag_indices(len(points))] += np.exp(self.noise)
        return np.asarray(np.linalg.cholesky(full), dtype=np.float64)

    def misfit(self, points: Array, values: Array, squares: Array) -> tuple[float, Array]:
        """Return the negative log marginal likelihood, its scale maximised, and its gradient.

        Rasmussen & Williams 2006, equations 5.8 and 5.9. `squares` are the squared differences of
        all pairs of points, (pairs, features).
        """
        from scipy.linalg import cho_solve

        count, rates = len(points), np.exp(2 * self.rates)
        distance = np.sqrt(5 * np.maximum(squares @ rates, _TINY)).reshape(count, count)
        decay = np.exp(-distance)
        line = self.line(points, points)
        full = (1 + distance + distance**2 / 3) * decay + line
        full[np.diag_indices(count)] += np.exp(self.noise)
        factor = np.linalg.cholesky(full)
        weights = cho_solve((factor, True), values)
        scale = max(float(values @ weights) / count, _TINY)
        value = 0.5 * count * np.log(scale) + float(np.log(np.diag(factor)).sum())
        pull = _inverse(factor) - np.outer(weights, weights) / scale
        by_distance: Array = -(5 / 6) * (pull * (1 + distance) * decay).ravel() @ squares * rates
        by_line, by_noise = 0.5 * (pull * line).sum(), 0.5 * np.trace(pull) * np.exp(self.noise)
        return value, np.append(by_distance, [by_line, by_noise])

    def _weight(self) -> float:
        return float(np.exp(self.linear)) / max(1, len(self.rates))


def _inverse(factor: Array) -> Array:
    """Return the inverse of what has this lower Cholesky factor, thrice as fast as solving."""
    from scipy.linalg.lapack import dpotri

    lower, _ = dpotri(factor, lower=1)
    found: Array = np.tril(lower) + np.tril(lower, -1).T
    return found


class AxisFeatures:
    """Describe assignments of a space as numbers, each axis as it looks to Optuna.

    Ordered axes are numbers (their logarithms, where they are no range) and one more that says
    whether the axis is active; others have a column per choice. Needs `distributions` and
    `to_optuna` of the space.
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
        for row, assignment in zip(table, assignments, strict=True):
            for name, value in assignment.items():
                where, numbers = self._row(name, value)
                row[where] = numbers
        return table

    def _row(self, name: str, value: Any) -> tuple[slice, Array]:
        key = (name, value)
        if key not in self._rows:
            ((parameter, stored),) = self._space.to_optuna({name: value}).items()
            self._rows[key] = (self._columns[parameter], self._orders[parameter](stored))
        return self._rows[key]


def _encoding(distribution: Any) -> tuple[Callable[[Any], Array], list[float]]:
    """Return how one axis becomes numbers, and the numbers where it is not active."""
    choices = getattr(distribution, "choices", None)
    if choices is None:
        low, high = float(distribution.low), float(distribution.high)
        return lambda value: np.array([float(value), 1.0]), [(low + high) / 2, 0.0]
    if all(type(choice) in (int, float) and choice > 0 for choice in choices):
        middle = float(np.mean(np.log(choices)))
        return lambda value: np.array([float(np.log(value)), 1.0]), [middle, 0.0]
    places = {choice: place for place, choice in enumerate(choices)}
    return lambda value: np.eye(len(places))[places[value]], [0.0] * len(places)
