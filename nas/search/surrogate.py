"""Predict a quantity of unseen architectures, with its uncertainty.

The surrogate is a Gaussian process on the logarithm of a positive quantity, or on the quantity
itself; its covariance function is in `nas.search.kernel`. A stationary kernel assumes the same
roughness everywhere, but spaces have flat and rough regions. Therefore the predictive variance is
multiplied by a local variance, a weighted mean of the squared leave-one-out residuals around the
candidate. A fit is deterministic. Numbers of equations are those of Rasmussen & Williams 2006,
*Gaussian Processes for Machine Learning*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.search.interfaces import Array
from nas.search.kernel import Kernel, most_probable_kernel

QUANTILE_COUNT = 16
"""Number of quantiles of a prediction, at the levels (i + 1/2) / 16. They represent the predictive
distribution by equally likely values, so that the expectation of a function is a plain mean."""

ENOUGH = 10
"""Minimum number of points for a fit that smooths values."""

_CHOSEN_ON = 100
"""Maximum number of points for the choice of hyperparameters: the time of each iteration grows with
their third power. Of more points a random subset is used, the same in every fit."""

_SQUARINGS = 4
"""Number of times that a correlation is squared to give a weight of the local variance. The weight
is the correlation to the power of 16, so only the nearest points count."""

_PRIOR_WEIGHT = 0.01
"""Weight of the value 1 in the local variance, which it tends to far from all points."""

_TINY = 1e-12


@dataclass(frozen=True)
class _Standardisation:
    """Scales features to mean 0 and variance 1, and drops those that are constant."""

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
    """A Gaussian process conditioned on observations.

    Attributes:
        inputs: Standardisation of the features.
        kernel: Kernel with the chosen hyperparameters.
        points: (points, features), the observed points, standardised.
        factor: (points, points), lower Cholesky factor of K, the covariance of the observations.
        weights: (points,), w = K^-1 y for the standardised observations y.
        variance: v, the scale of the process; K is relative to it.
        squared_residuals: (points,), see `_squared_residuals`.
        mean, deviation: Mean and standard deviation of the observations.
        linear: Whether the observations are the values themselves, not their logarithms.
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
    linear: bool = False

    def predict(self, features: Array) -> Array:
        """Return quantiles of the predictive distribution, (candidates, QUANTILE_COUNT), ascending.

        An observation is normal. Its mean is equation 2.25. Its variance is equation 2.26 plus the
        noise variance, times the scale v and the local variance.

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
        normal = ndtri((np.arange(QUANTILE_COUNT) + 0.5) / QUANTILE_COUNT)
        standard = (cross @ self.weights)[:, None] + deviation[:, None] * normal
        predicted: Array = self.mean + self.deviation * standard
        # The exponential of more than 709 overflows a double.
        return predicted if self.linear else np.exp(np.clip(predicted, -700, 700))

    def _local_variance(self, correlation: Array) -> Array:
        """Return (sum_i c_i^16 r_i^2 + p) / (sum_i c_i^16 + p) of each candidate, (candidates,).

        Here c_i is the Matern correlation to the observed point i, r_i its standardised
        leave-one-out residual, and p is `_PRIOR_WEIGHT`. It is a kernel-weighted mean of squared
        residuals (Nadaraya 1964, Watson 1964). It is about 1 where errors are as large as the
        process predicts, and larger where the process is overconfident.

        Args:
            correlation: (candidates, points); overwritten.
        """
        for _ in range(_SQUARINGS):
            correlation *= correlation
        weighted = correlation @ self.squared_residuals + _PRIOR_WEIGHT
        found: Array = weighted / (correlation.sum(axis=1) + _PRIOR_WEIGHT)
        return found


def fit(
    features: Array, values: Array, linear: bool = False, noise: float | None = None
) -> Surrogate:
    """Condition a Gaussian process on observations.

    Args:
        features: (points, features).
        values: (points,), positive unless `linear`.
        linear: Whether to model the values themselves, not their logarithms.
        noise: Standard deviation by which two observations of one architecture differ, relative to
            the value unless `linear`; None where it is not known.
    """
    from scipy.linalg import cho_solve

    inputs = _Standardisation.of(features)
    target = values if linear else np.log(np.maximum(values, _TINY))
    mean, deviation = target.mean(), max(float(target.std()), _TINY)
    points, standard = inputs(features), (target - mean) / deviation
    subset = np.random.default_rng(0).permutation(len(points))[:_CHOSEN_ON]
    known = None if noise is None else max(noise / deviation, _TINY) ** 2
    kernel = most_probable_kernel(points[subset], standard[subset], known)
    factor = kernel.cholesky(points)
    weights = cho_solve((factor, True), standard)
    variance = float(standard @ weights) / len(points)
    residuals = _squared_residuals(factor, weights, variance)
    return Surrogate(
        inputs, kernel, points, factor, weights, variance, residuals, mean, deviation, linear
    )


def smoothed(features: Array, values: Array) -> Array:
    """Return the posterior median at each observed point, (points,): values without their luck.

    Args:
        features: (points, features); at least `ENOUGH` points are needed for a useful fit.
        values: (points,), positive.
    """
    found: Array = np.median(fit(features, values).predict(features), axis=1)
    return found


def _squared_residuals(factor: Array, weights: Array, variance: float) -> Array:
    """Return the squared standardised leave-one-out residual of each observed point, (points,).

    By equation 5.12, point i is predicted from all others with the residual w_i / p_i and the
    variance v / p_i, where w are the weights, v is the scale of the process and p_i is the diagonal
    of K^-1. The squared residual over its variance is therefore w_i^2 / (p_i v).
    """
    from scipy.linalg.lapack import dtrtri

    inverse = dtrtri(factor, lower=1)[0]  # K^-1 = inverse^T inverse; only its diagonal is used
    precision = np.einsum("ij,ij->j", inverse, inverse)
    found: Array = weights**2 / (precision * max(variance, _TINY))
    return found
