"""The acquisition of candidates, from everything that a search has observed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.acquisition import BoxDecomposition
from nas.search.candidates import Candidates
from nas.search.feasibility import Feasibility
from nas.search.focus import compressed
from nas.search.history import History, Observation, surrogate_inputs
from nas.search.interfaces import Array, Mask
from nas.search.surrogate import Surrogate, fit

_VARIANTS = 4
"""Number of equally likely values that represent a predicted cost."""

_MARGIN = 0.01
"""Distance of the reference point from the highest costs, in units of their range. It makes
candidates of the highest cost dominate some volume too."""


@dataclass(frozen=True)
class Predictions:
    """What is known or predicted of candidates.

    Attributes:
        costs: (variants, candidates, costs), equally likely costs on their scales.
        losses: (candidates, quantiles), equally likely losses.
        feasibility: (candidates,), the probability that all limits are satisfied.
    """

    costs: Array
    losses: Array
    feasibility: Array


@dataclass(frozen=True)
class Screening:
    """Predicts candidates, and compares them by their expected hypervolume improvement.

    Attributes:
        exact: (costs,), the costs that are known of every candidate.
        loss: Surrogate of the loss, which is compressed above the loss of the reference point.
        costs: Column -> surrogate of each cost that is not exact.
        feasibility: Judges candidates by the limits.
        attained: (points, objectives), the costs, on their scales, and the loss of all finished
            candidates that satisfy the limits, and the expected ones of pending candidates.
        reference_loss: Loss of the reference point.
    """

    exact: Mask
    loss: Surrogate
    costs: Mapping[int, Surrogate]
    feasibility: Feasibility
    attained: Array
    reference_loss: float

    @classmethod
    def of(
        cls,
        history: History,
        feasibility: Feasibility,
        exact: Mask,
        reference_loss: float,
        noise: float | None,
    ) -> Screening:
        """Fit the surrogates to all observations; two of them or more have a loss.

        Pending candidates count as points of the front at their predicted values, so that parallel
        workers do not evaluate neighbours (the "Kriging believer" of Ginsbourger et al. 2010). The
        prediction is the median, which corresponds to the mean of the logarithm that the process
        models. The surrogate itself is not fitted to predicted values.

        Args:
            history: The observations.
            feasibility: Judges candidates by the limits.
            exact: (costs,), the costs that are known of every candidate.
            reference_loss: Loss of the reference point.
            noise: As in `nas.search.pareto.ParetoOptions`.
        """
        data, losses = history.training_data()
        pending = [one for one in history.own if one.pending]
        inputs = surrogate_inputs([*data, *pending], exact)
        known, waiting = inputs[: len(data)], inputs[len(data) :]
        loss = fit(known, compressed(losses, reference_loss), history.linear, noise)
        surrogates = _cost_surrogates(data, known, exact, history.linear_costs)
        finished = [one for one in history.own if one.loss is not None and one.feasible]
        expected_costs = _expected_costs(pending, surrogates, waiting, len(exact))
        expected = _expected_losses(history, pending, loss, waiting)
        costs = np.vstack([*(one.costs for one in finished), expected_costs])
        losses = np.array([*(one.loss for one in finished), *expected], dtype=np.float64)
        attained = np.column_stack([costs, losses])
        return cls(exact, loss, surrogates, feasibility, attained, reference_loss)

    def predict(self, found: Candidates) -> Predictions:
        """Predict candidates."""
        inputs = found.inputs(self.exact)
        costs = _cost_variants(found, self.costs, inputs)
        return Predictions(costs, self.loss.predict(inputs), self.feasibility.probability(found))

    def undominated(self, predictions: Predictions) -> BoxDecomposition:
        """Return the region that nothing attained dominates, up to the reference point.

        Its hypervolume is that of costs on their scales and the loss itself. The reference point
        lies beyond the highest costs of all points and predictions by `_MARGIN`.
        """
        from moocore import is_nondominated

        points = self.attained[is_nondominated(self.attained)]
        everything = np.vstack([self.attained[:, :-1], *predictions.costs])
        span = np.ptp(everything, axis=0)
        # A cost that is the same for all must not leave every improvement without volume.
        highest = everything.max(axis=0) + _MARGIN * np.where(span > 0, span, 1)
        reference = np.append(highest, self.reference_loss)
        return BoxDecomposition.of(points[:, :-1], points[:, -1], reference)


def _expected_losses(
    history: History, pending: Sequence[Observation], surrogate: Surrogate, inputs: Array
) -> list[float]:
    """Return the expected loss of pending candidates: extrapolated if possible, else predicted."""
    predicted = np.median(surrogate.predict(inputs), axis=1)
    extrapolated = [history.expected_loss(one) for one in pending]
    return [
        float(loss) if known is None else known
        for known, loss in zip(extrapolated, predicted, strict=True)
    ]


def _cost_surrogates(
    data: Sequence[Observation], known: Array, exact: Mask, linear: Mask
) -> dict[int, Surrogate]:
    """Return column -> surrogate for each cost that is not exact, fitted where it is known."""
    found = {}
    for axis in np.flatnonzero(~exact).tolist():
        costs = np.array([one.costs[axis] for one in data])
        measured = ~np.isnan(costs)
        values = costs[measured] if linear[axis] else np.exp(costs[measured])
        found[axis] = fit(known[measured], values, bool(linear[axis]))
    return found


def _cost_variants(found: Candidates, surrogates: Mapping[int, Surrogate], asked: Array) -> Array:
    """Return equally likely costs on their scales, (variants, candidates, costs)."""
    variants = np.repeat(found.costs[None], _VARIANTS if surrogates else 1, axis=0)
    for axis, surrogate in surrogates.items():
        quantiles = surrogate.predict(asked)
        thinned = quantiles.reshape(len(quantiles), _VARIANTS, -1).mean(axis=2)
        variants[:, :, axis] = (thinned if surrogate.linear else np.log(thinned)).T
    return variants


def _expected_costs(
    pending: Sequence[Observation], surrogates: Mapping[int, Surrogate], inputs: Array, columns: int
) -> Array:
    """Return the costs of pending candidates on their scales, (pending, costs).

    Costs that are not known are the median of a prediction.
    """
    expected = np.array([one.costs for one in pending]).reshape(-1, columns)
    for axis, surrogate in surrogates.items():
        median = np.median(surrogate.predict(inputs), axis=1)
        expected[:, axis] = median if surrogate.linear else np.log(median)
    return expected
