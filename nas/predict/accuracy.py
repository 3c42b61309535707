"""The errors of predicted latencies, and those of two simple baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nas.predict.calibration import Measurement
from nas.predict.cost_model import Floats
from nas.predict.operations import Part, operation_groups
from nas.predict.predictor import LatencyPredictor, uncontended
from search_spaces.architecture import Architecture

RatioPredictor = Callable[[Sequence[Architecture]], Floats]
"""Architectures -> latencies over that of `original`, `(n,)`."""

WITHIN = 0.10
"""Largest relative error that counts as accurate."""


@dataclass(frozen=True)
class Accuracy:
    """Relative errors of predicted latencies.

    Attributes:
        name: Name of the predictor or baseline.
        count: Number of architectures.
        within_10: Share of the architectures whose error is at most 10 %.
        median_error: Median of the errors.
        p90_error: 90 % quantile of the errors.
        spearman, kendall: Rank correlations of predicted and measured latencies; 1 means the same
            order.
    """

    name: str
    count: int
    within_10: float
    median_error: float
    p90_error: float
    spearman: float
    kendall: float


def check(
    predictor: LatencyPredictor,
    measurements: Sequence[Measurement] | None = None,
    *,
    undisturbed: bool = False,
) -> list[Accuracy]:
    """Return the accuracy of the predictor, then that of each baseline.

    Args:
        predictor: The predictor. Baselines are fitted to the same measurements.
        measurements: Measurements to compare with; those held out by default.
        undisturbed: Compare with CPU times where these are known, so that contention does not count
            as an error of the prediction.
    """
    measured = predictor.calibration.of("held_out") if measurements is None else measurements
    architectures = [measurement.architecture for measurement in measured]
    ratios = np.array([m.undisturbed_ratio if undisturbed else m.ratio for m in measured])
    named = {"predictor": predictor.predict_ratio, **baselines(predictor)}
    return [accuracy(name, predict(architectures), ratios) for name, predict in named.items()]


def accuracy(name: str, predicted: Floats, measured: Floats) -> Accuracy:
    """Return the accuracy of predictions, compared with measurements, both `(n,)`."""
    from scipy.stats import kendalltau, spearmanr

    errors = np.abs(predicted / measured - 1)
    return Accuracy(
        name,
        len(measured),
        float(np.mean(errors <= WITHIN)),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        float(spearmanr(predicted, measured).statistic),
        float(kendalltau(predicted, measured).statistic),
    )


def baselines(predictor: LatencyPredictor) -> dict[str, RatioPredictor]:
    """Return two baselines: predictions from multiply-adds alone and from launches alone.

    They are fitted to the same measurements as the predictor, each as the better of a linear
    function and a power law.
    """
    fitted, part = uncontended(predictor.calibration.of("fitted")), predictor.setting.part
    architectures = [measurement.architecture for measurement in fitted]
    ratios = np.array([measurement.undisturbed_ratio for measurement in fitted])
    return {
        "MACs only": _best(partial(_total, "macs", part), architectures, ratios),
        "launches only": _best(partial(_total, "launches", part), architectures, ratios),
    }


def _total(count: str, part: Part, architectures: Sequence[Architecture]) -> Floats:
    groups = [operation_groups(architecture, part) for architecture in architectures]
    return np.array([sum(getattr(one, count) for one in each) for each in groups], dtype=float)


def _best(
    count: RatioPredictor, architectures: Sequence[Architecture], ratios: Floats
) -> RatioPredictor:
    counts = count(architectures)
    fits = [_line(counts, ratios), _power(counts, ratios)]
    best = min(fits, key=lambda fit: float(np.mean(np.abs(fit(counts) / ratios - 1))))
    return lambda others: best(count(others))


def _line(counts: Floats, ratios: Floats) -> Callable[[Floats], Floats]:
    """Fit ratio = a + b x count by least squares of the relative error."""
    terms = np.column_stack([np.ones(len(counts)), counts])
    weights, *_ = np.linalg.lstsq(terms / ratios[:, None], np.ones(len(ratios)), rcond=None)
    return lambda others: weights[0] + weights[1] * others


def _power(counts: Floats, ratios: Floats) -> Callable[[Floats], Floats]:
    """Fit ratio = a x count^b by least squares of the logarithm."""
    slope, intercept = np.polyfit(np.log(counts), np.log(ratios), 1)
    return lambda others: np.exp(intercept + slope * np.log(others))
