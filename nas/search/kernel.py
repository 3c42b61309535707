"""The covariance function of the Gaussian process, and the choice of its hyperparameters.

Numbers of equations and sections are those of Rasmussen & Williams 2006, *Gaussian Processes for
Machine Learning*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.search.interfaces import Array

_NOISE = 1e-2
"""Mode of the prior on the noise variance, relative to the variance of the Matern term."""

_TOLD_VARIANCE = 0.25
"""Variance of the logarithm of a noise variance that a few repeated trainings have found."""

_STEPS = 15
"""Maximum iterations of L-BFGS-B on the hyperparameters: more hardly change the predictions."""

_TINY = 1e-12


@dataclass(frozen=True)
class Kernel:
    """Matern 5/2 kernel with one length scale per feature, a linear kernel, and noise.

    k(x, y) = (1 + d + d^2 / 3) exp(-d) + (w / n) x.y, where d = sqrt(5) |(x - y) / l| for the
    vector of length scales l and n features. The first term is equation 4.17 with automatic
    relevance determination (section 5.1), the second the dot product kernel (section 4.2.2). It
    lets the process extrapolate a trend, where the Matern term returns to the mean. Observations
    have independent noise. All variances are relative to that of the Matern term, which is the
    scale of the process.

    Attributes:
        log_inverse_lengths: (features,), logarithms of 1 / length scale.
        log_linear: Logarithm of w, the variance of the linear kernel.
        log_noise: Logarithm of the noise variance.
    """

    log_inverse_lengths: Array
    log_linear: float
    log_noise: float

    @classmethod
    def of(cls, theta: Array) -> Kernel:
        """Return the kernel with the vector of hyperparameters `theta`, (features + 2,)."""
        return cls(theta[:-2], float(theta[-2]), float(theta[-1]))

    def linear(self, first: Array, second: Array) -> Array:
        """Return the linear kernel between two sets of points, (first, second)."""
        return self._linear_variance() * (first @ second.T)

    def matern(self, first: Array, second: Array) -> Array:
        """Return the Matern 5/2 correlation between two sets of points, (first, second)."""
        distance = self._distance(first, second)
        # All steps work in place, because a new array of a million pairs does not fit in the
        # processor's cache.
        correlation: Array = distance / 3
        correlation += 1
        correlation *= distance
        correlation += 1
        correlation *= np.exp(np.negative(distance, out=distance), out=distance)
        return correlation

    def _distance(self, first: Array, second: Array) -> Array:
        """Return d of each pair, (first, second)."""
        inverse_lengths = np.exp(self.log_inverse_lengths)
        one, other = first * inverse_lengths, second * inverse_lengths
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b: several times faster than differences of all pairs.
        found: Array = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
        # Rounding can make the difference of squares negative.
        np.sqrt(np.multiply(np.maximum(found, 0, out=found), 5, out=found), out=found)
        return found

    def prior_variance(self, points: Array) -> Array:
        """Return the prior variance of an observation at each point, noise included: (points,)."""
        linear = self._linear_variance() * (points**2).sum(axis=1)
        total: Array = 1 + np.exp(self.log_noise) + linear
        return total

    def cholesky(self, points: Array) -> Array:
        """Return the lower Cholesky factor of the covariance of noisy observations."""
        full = self.matern(points, points) + self.linear(points, points)
        full[np.diag_indices(len(points))] += np.exp(self.log_noise)
        return np.asarray(np.linalg.cholesky(full), dtype=np.float64)

    def negative_log_likelihood(
        self, points: Array, values: Array, noise: float | None = None
    ) -> tuple[float, Array]:
        """Return the negative log marginal likelihood of `values` and its gradient.

        With a known noise variance the negative logarithm of a normal density is added, of the
        logarithm of the noise variance on the scale of the values: s times that of the kernel.

        Equations 5.8 and 5.9 without the constant. The scale s of the process is at its optimum
        for the other hyperparameters, s = y.K^-1 y / n for the n values y and their covariance K
        (profile likelihood), so that it need not be optimised.

        Args:
            points: (points, features).
            values: (points,).
            noise: The noise variance of the values if it is known.

        Returns:
            The value, and its gradient by the hyperparameters, (features + 2,).
        """
        from scipy.linalg import cho_solve

        count, rates = len(points), np.exp(2 * self.log_inverse_lengths)
        # `matern` is not used, because the gradient needs distances and exponentials as well.
        distance = self._distance(points, points)
        decay = np.exp(-distance)
        linear = self.linear(points, points)
        full: Array = (1 + distance + distance**2 / 3) * decay + linear
        full[np.diag_indices(count)] += np.exp(self.log_noise)
        factor: Array = np.asarray(np.linalg.cholesky(full), dtype=np.float64)
        weights = cho_solve((factor, True), values)
        scale = max(float(values @ weights) / count, _TINY)
        value = 0.5 * count * np.log(scale) + float(np.log(np.diag(factor)).sum())
        # Equation 5.9: half the trace of (K^-1 - w w^T / s) times each derivative of K, where
        # w = K^-1 y. With the squared difference q of a feature and its length scale l, the
        # derivative of the Matern kernel by log(1 / l) is -(5/3) (1 + d) exp(-d) q / l^2.
        by_scale = np.outer(weights, weights) / scale
        outer = _inverse(factor) - by_scale
        if noise is not None:
            away = np.log(scale) + self.log_noise - np.log(noise)
            value += 0.5 * away**2 / _TOLD_VARIANCE
            # The derivative of log s by K is -w w^T / (s n).
            outer -= 2 * away / (_TOLD_VARIANCE * count) * by_scale
        # The sum of m_ij q_ij over all pairs, for a symmetric m, is 2 (sum_i m_i x_i^2 - x.m x),
        # where m_i is the sum of a row: products of matrices, without an array of all q.
        slopes = outer * (1 + distance) * decay
        pairs = slopes.sum(axis=1) @ points**2 - (points * (slopes @ points)).sum(axis=0)
        by_lengths: Array = -(5 / 3) * pairs * rates
        by_linear = 0.5 * (outer * linear).sum()
        by_noise = 0.5 * np.trace(outer) * np.exp(self.log_noise)
        if noise is not None:
            by_noise += away / _TOLD_VARIANCE
        return value, np.append(by_lengths, [by_linear, by_noise])

    def _linear_variance(self) -> float:
        return float(np.exp(self.log_linear)) / max(1, len(self.log_inverse_lengths))


def most_probable_kernel(points: Array, values: Array, noise: float | None = None) -> Kernel:
    """Return the kernel whose hyperparameters maximise marginal likelihood times prior.

    The priors of this maximum a posteriori estimate are normal distributions of the logarithms.
    That of a length scale is centred at log(e sqrt(n)) for n features: distances then have the same
    size for any number of features (compare Hvarfner et al. 2024), and a feature has little
    influence unless the data support it.

    Args:
        points: (points, features), standardised.
        values: (points,), standardised.
        noise: The noise variance of the values if it is known.
    """
    from scipy.optimize import minimize

    count = points.shape[1]
    mode = np.append(np.full(count, -1 - 0.5 * np.log(max(1, count))), [0, np.log(_NOISE)])
    variance = np.append(np.ones(count), [4, 4])

    def negative_log_posterior(theta: Array) -> tuple[float, Array]:
        value, gradient = Kernel.of(theta).negative_log_likelihood(points, values, noise)
        away = (theta - mode) / variance
        return value + 0.5 * float(away @ (theta - mode)), gradient + away

    bounds = [(-7, 2)] * count + [(-8, 5), (np.log(1e-5), 1)]
    found = minimize(
        negative_log_posterior, mode, jac=True, method="L-BFGS-B", bounds=bounds,
        options={"maxiter": _STEPS},
    )  # fmt: skip
    return Kernel.of(found.x)


def _inverse(factor: Array) -> Array:
    """Return the inverse of the matrix whose lower Cholesky factor is given.

    LAPACK's `dpotri` is three times as fast as solving for the identity matrix. It fills one
    triangle only.
    """
    from scipy.linalg.lapack import dpotri

    lower, _ = dpotri(factor, lower=1)
    found: Array = np.tril(lower) + np.tril(lower, -1).T
    return found
