"""How probably a candidate keeps to hard limits, by predictions and by what earlier ones missed."""

from __future__ import annotations

import numpy as np

from nas.search.candidates import Candidates
from nas.search.history import History, surrogate_inputs
from nas.search.interfaces import Array, KnownLimits
from nas.search.surrogate import fit

_ERROR_QUANTILE = 0.8
"""Quantile of past prediction errors that is added to a predicted excess: most stay below it."""

_FEWEST = 3
"""Candidates from which on a distribution of errors, or of excesses, is estimated."""

_LEAST_DEVIATION = 0.03
"""Smallest standard deviation of prediction errors, as a logarithm: few of them can agree by
chance."""

_LEAST_PROBABILITY = 1e-3
"""Smallest probability for a limit that is learned: a surrogate may be wrong about it."""


class Feasibility:
    """Judges candidates by the limits of a study.

    A limit of which something is known beforehand is predicted by `KnownLimits`. One of which
    nothing is known is learned by a surrogate from the candidates whose excess was reported.
    """

    def __init__(self, history: History, limits: KnownLimits | None) -> None:
        self._history, self._limits = history, limits

    @property
    def limited(self) -> bool:
        """Whether there is any limit, as far as is known."""
        return bool(self._limits or any(one.violations for one in self._history.own))

    def largest_excess(self, found: Candidates) -> Array:
        """Return the excess over the limit that a candidate misses most, (candidates,).

        As a logarithm; a predicted excess is raised by the `_ERROR_QUANTILE` of past errors.
        """
        shifts = [
            np.quantile(errors, _ERROR_QUANTILE) if len(errors) else 0 for errors in self._errors()
        ]
        largest: Array = (found.excess + shifts).max(axis=1, initial=-np.inf)
        return largest

    def probability(self, found: Candidates) -> Array:
        """Return the probability that a candidate keeps to all limits, (candidates,).

        Limits are taken as independent. The error of a prediction is taken as normal, with mean and
        deviation of past errors; with fewer than `_FEWEST` of them predictions are believed.
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
            product *= self._learned_probability(name, found)
        return product

    def _learned(self) -> list[str]:
        """Return the limits that were reported and that nothing predicts, in that order."""
        known = self._limits.names if self._limits else ()
        reported = {name: None for one in self._history.own for name in one.violations}
        return [name for name in reported if name not in known]

    def _learned_probability(self, name: str, found: Candidates) -> Array | float:
        """Return the share of predicted quantiles that keep to a limit; 1 before any missed it."""
        reported = [one for one in self._history.own if name in one.violations]
        excess = np.array([one.violations[name] for one in reported])
        if len(reported) < _FEWEST or excess.max() <= 0:
            return 1.0
        exact = found.exact
        predicted = fit(surrogate_inputs(reported, exact), 1 + excess).predict(found.inputs(exact))
        probability: Array = np.maximum((predicted <= 1).mean(axis=1), _LEAST_PROBABILITY)
        return probability

    def _errors(self) -> list[list[float]]:
        """Return past prediction errors for each known limit: measured minus predicted excess."""
        if self._limits is None:
            return []
        return [
            self._errors_of(column, name) if name in self._limits.predicted else []
            for column, name in enumerate(self._limits.names)
        ]

    def _errors_of(self, column: int, name: str) -> list[float]:
        # A candidate that its own prediction rejected was not measured: it has no error.
        return [
            np.log1p(one.violations[name]) - one.excess[column]
            for one in self._history.own
            if name in one.violations and one.excess[column] <= 0
        ]
