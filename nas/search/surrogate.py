"""Predict a positive quantity of unseen architectures, with its uncertainty.

A Gaussian process on the logarithm of the quantity; `nas.search.kernel` has its covariance. Spaces
have regions that are flat and regions that are rough, so the predictive variance is scaled by how
well the points around a candidate are predicted from all others. A fit is deterministic. Numbers of
equations are those of Rasmussen & Williams 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.search.interfaces import Array
from nas.search.kernel import Kernel, most_probable_kernel

QUANTILES = 16
"""How many quantiles a prediction consists of, at the levels (i + 1/2) / 16: equally likely
values of the quantity, so that an expectation over it is a plain mean."""

_CHOSEN_ON = 100
"""Most points that hyperparameters are chosen on: the time grows with the cube of their number."""

_SQUARINGS = 4
"""The weight of an observed point in the local variance is its Matern correlation to the candidate
to the power of 16, by squaring it four times: only the nearest points count."""

_PRIOR_WEIGHT = 0.01
"""Weight of the value 1 in the local variance: far from all points the variance is not changed."""

_TINY = 1e-12


@dataclass(frozen=True)
class _Standardisation:
    """Shifts and scales features to mean 0 and variance 1; drops those that are constant."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, features: Array) -> _Standardisation:
        return cls(features.mean(axis=0), features.std(axis=0))

    def __call__(self, features: Array) -> Array:
        varies = self.deviation > 1e-9
        found: Array = (features[:, varies] - self.mean[varies]) / self.deviation[varies]
        return found


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process given observations.

    Attributes:
        inputs: Standardisation of features.
        kernel: With the hyperparameters that were chosen.
        points: (points, features), the observed ones, standardised.
        factor: (points, points), lower Cholesky factor of their covariance.
        weights: (points,), the covariance's inverse times the observed values.
        variance: Scale of the process.
        squared_residuals: (points,), see `_squared_residuals`.
        mean, deviation: Of the logarithms of the observed values.
    """

    inputs: _Standardisation
    kernel: Kernel
    points: Array
    factor: Array
    weights: Array
    variance: float
    squared_residuals: Array
    mean: float
    deviation: float

    def predict(self, features: Array) -> Array:
        """Return quantiles of the quantity, (candidates, QUANTILES), ascending.

        The mean of the logarithm is equation 2.25, its variance equation 2.26 times the local
        variance.

        Args:
            features: (candidates, features).
        """
        from scipy.linalg import solve_triangular
        from scipy.special import ndtri

        wanted = self.inputs(features)
        correlation = self.kernel.matern(wanted, self.points)
        cross = correlation + self.kernel.linear(wanted, self.points)
        explained = solve_triangular(self.factor, cross.T, lower=True)
        left = self.kernel.prior_variance(wanted) - (explained**2).sum(axis=0)
        local = self._local_variance(correlation)
        deviation = np.sqrt(self.variance * local * np.maximum(left, _TINY))
        normal = ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES)
        standard = (cross @ self.weights)[:, None] + deviation[:, None] * normal
        # Beyond 700 the exponential leaves the range of doubles.
        quantiles: Array = np.exp(np.clip(self.mean + self.deviation * standard, -700, 700))
        return quantiles

    def _local_variance(self, correlation: Array) -> Array:
        """Return (sum_i c_i^16 r_i^2 + p) / (sum_i c_i^16 + p) of each candidate.

        c_i is the correlation to observed point i, r_i its standardised leave-one-out residual,
        p `_PRIOR_WEIGHT`: a weighted mean of the squared residuals around the candidate (Nadaraya
        1964, Watson 1964), which is 1 where predictions are as uncertain as the process says.

        Args:
            correlation: (candidates, points); overwritten.
        """
        for _ in range(_SQUARINGS):
            correlation *= correlation
        weighted = correlation @ self.squared_residuals + _PRIOR_WEIGHT
        found: Array = weighted / (correlation.sum(axis=1) + _PRIOR_WEIGHT)
        return found


def fit(features: Array, values: Array) -> Surrogate:
    """Condition a Gaussian process on observations.

    Args:
        features: (points, features).
        values: (points,), positive.
    """
    from scipy.linalg import cho_solve

    inputs, target = _Standardisation.of(features), np.log(np.maximum(values, _TINY))
    mean, deviation = target.mean(), max(float(target.std()), _TINY)
    points, standard = inputs(features), (target - mean) / deviation
    subset = np.random.default_rng(0).permutation(len(points))[:_CHOSEN_ON]
    kernel = most_probable_kernel(points[subset], standard[subset])
    factor = kernel.cholesky(points)
    weights = cho_solve((factor, True), standard)
    variance = float(standard @ weights) / len(points)
    residuals = _squared_residuals(factor, weights, variance)
    return Surrogate(inputs, kernel, points, factor, weights, variance, residuals, mean, deviation)


def _squared_residuals(factor: Array, weights: Array, variance: float) -> Array:
    """Return the squared standardised leave-one-out residual of each observed point, (points,).

    By equation 5.12 the residual is w_i / p_i and its predictive variance v / p_i, where w are the
    weights, v the scale of the process and p_i the diagonal of the covariance's inverse; so the
    square of their ratio is w_i^2 / (p_i v).
    """
    from scipy.linalg.lapack import dtrtri

    inverse = dtrtri(factor, lower=1)[0]  # K^-1 = inverse^T inverse; only the diagonal is needed
    precision = np.einsum("ij,ij->j", inverse, inverse)
    found: Array = weights**2 / (precision * max(variance, _TINY))
    return found
