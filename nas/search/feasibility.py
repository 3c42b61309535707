"""The probability that a candidate satisfies the hard limits of a study."""

from __future__ import annotations

import numpy as np

from nas.search.candidates import Candidates
from nas.search.history import History, surrogate_inputs
from nas.search.interfaces import Array, KnownLimits
from nas.search.surrogate import Surrogate, fit

_ERROR_QUANTILE = 0.8
"""Quantile of past prediction errors that is added to a predicted cost.

Both are logarithms. Most errors are below it, so few candidates are taken to satisfy a limit that
they then exceed."""

_HOPEFUL = 0.2
"""Quantile of the excess over a learned limit. Candidates that may satisfy the limit are tried:
those that certainly do are near the ones that did, and at first there are none."""

_FEWEST = 3
"""Minimum number of candidates from which a distribution of errors or of excesses is estimated."""

_LEAST_DEVIATION = 0.03
"""Minimum standard deviation of prediction errors (logarithms): few can agree by chance."""

_LEAST_PROBABILITY = 1e-3
"""Minimum probability for a limit that is learned, because a surrogate may be wrong about it."""


class Feasibility:
    """Judges candidates by the limits of a study.

    The excess over a limit is predicted by `KnownLimits` where it can be. For any other limit a
    surrogate learns it from the candidates whose excess was reported.
    """

    def __init__(self, history: History, limits: KnownLimits | None) -> None:
        self._history, self._limits = history, limits
        self._surrogates: dict[str, tuple[tuple[int, bytes], Surrogate]] = {}

    @property
    def limited(self) -> bool:
        """Whether a limit is given or was reported."""
        return bool(self._limits or any(one.violations for one in self._history.own))

    def largest_excess(self, found: Candidates) -> Array:
        """Return the largest predicted excess over any limit, (candidates,).

        The excess is the logarithm of value over limit. Where it is computed, the `_ERROR_QUANTILE`
        of past errors is added to it; where it is learned, it is the `_HOPEFUL` quantile.
        """
        shifts = [
            np.quantile(errors, _ERROR_QUANTILE) if len(errors) else 0 for errors in self._errors()
        ]
        known: Array = (found.excess + shifts).max(axis=1, initial=-np.inf)
        learned = [self._learned_excess(name, found) for name in self._learned()]
        predicted = [np.quantile(one, _HOPEFUL, axis=1) for one in learned if one is not None]
        largest: Array = np.max([known, *predicted], axis=0)
        return largest

    def probability(self, found: Candidates) -> Array:
        """Return the probability that a candidate satisfies all limits, (candidates,).

        The limits are treated as independent, so the result is a product. For a predicted excess e
        the factor is Phi(-(e + m) / s), where Phi is the standard normal distribution function and
        m and s are mean and standard deviation of past errors. With fewer than `_FEWEST` errors the
        prediction is taken as exact.
        """
        from scipy.special import ndtr

        product = np.ones(len(found))
        for excess, errors in zip(found.excess.T, self._errors(), strict=True):
            if len(errors) < _FEWEST:
                product *= excess <= 0
            else:
                deviation = max(float(np.std(errors)), _LEAST_DEVIATION)
                product *= ndtr(-(excess + np.mean(errors)) / deviation)
        for name in self._learned():
            excess = self._learned_excess(name, found)
            if excess is not None:
                product *= np.maximum((excess <= 0).mean(axis=1), _LEAST_PROBABILITY)
        return product

    def _learned(self) -> list[str]:
        """Return the reported limits that are not predicted, in the order of their first report."""
        known = self._limits.names if self._limits else ()
        reported = {name: None for one in self._history.own for name in one.violations}
        return [name for name in reported if name not in known]

    def _learned_excess(self, name: str, found: Candidates) -> Array | None:
        """Return quantiles of the logarithm of value over limit, (candidates, QUANTILE_COUNT).

        The result is None as long as too few candidates were reported, or none exceeded the limit.
        """
        reported = [one for one in self._history.own if name in one.violations]
        excess = np.array([one.violations[name] for one in reported])
        if len(reported) < _FEWEST or excess.max() <= 0:
            return None
        exact = found.exact
        # A violation is value over limit minus 1; the surrogate needs positive values.
        # Draws towards a limit ask many times about the same reports.
        state = len(reported), exact.tobytes()
        if self._surrogates.get(name, (None,))[0] != state:
            self._surrogates[name] = state, fit(surrogate_inputs(reported, exact), 1 + excess)
        return np.asarray(np.log(self._surrogates[name][1].predict(found.inputs(exact))))

    def _errors(self) -> list[list[float]]:
        """Return past prediction errors of each known limit: measured minus predicted excess."""
        if self._limits is None:
            return []
        return [
            self._errors_of(column, name) if name in self._limits.predicted else []
            for column, name in enumerate(self._limits.names)
        ]

    def _errors_of(self, column: int, name: str) -> list[float]:
        # A candidate that was rejected because of its prediction was not measured.
        return [
            np.log1p(one.violations[name]) - one.excess[column]
            for one in self._history.own
            if name in one.violations and one.excess[column] <= 0
        ]
