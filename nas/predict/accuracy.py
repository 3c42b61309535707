"""How far predicted latencies are off, beside the two baselines a predictor has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nas.predict.calibration import Measurement
from nas.predict.cost_model import Floats
from nas.predict.operations import exact_costs, operations
from nas.predict.predictor import LatencyPredictor, quiet
from search_spaces.architecture import Architecture

RatioPredictor = Callable[[Sequence[Architecture]], Floats]

WITHIN = 0.10


@dataclass(frozen=True)
class Accuracy:
    """Errors of predicted latencies of `count` architectures, relative to those measured.

    `within_10` is the share that is off by 10 % at most; `spearman` and `kendall` are the rank
    correlations of predicted and measured latencies (1: the same order).
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
    """Return how accurate the predictor is, then each baseline, on measurements held out.

    Baselines are fitted to what the predictor was fitted to. `undisturbed` compares with CPU times
    where these are known, so that a busy machine does not pass for a wrong prediction.
    """
    measured = predictor.calibration.of("held_out") if measurements is None else measurements
    architectures = [measurement.architecture for measurement in measured]
    ratios = np.array([m.undisturbed_ratio if undisturbed else m.ratio for m in measured])
    named = {"predictor": predictor.predict_ratio, **baselines(predictor)}
    return [accuracy(name, predict(architectures), ratios) for name, predict in named.items()]


def accuracy(name: str, predicted: Floats, measured: Floats) -> Accuracy:
    """Compare predictions with measurements, both `(n,)`."""
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
    """Return what multiply-adds alone and launches alone predict, fitted to the same measurements.

    Each is the better of a straight line and a power law.
    """
    fitted = quiet(predictor.calibration.of("fitted"))
    architectures = [measurement.architecture for measurement in fitted]
    ratios = np.array([measurement.undisturbed_ratio for measurement in fitted])
    return {
        "MACs only": _best(_macs, architectures, ratios),
        "launches only": _best(_launches, architectures, ratios),
    }


def _macs(architectures: Sequence[Architecture]) -> Floats:
    return exact_costs(architectures)["macs"].astype(float)


def _launches(architectures: Sequence[Architecture]) -> Floats:
    return np.array([sum(o.launches for o in operations(a)) for a in architectures], dtype=float)


def _best(
    count: RatioPredictor, architectures: Sequence[Architecture], ratios: Floats
) -> RatioPredictor:
    counts = count(architectures)
    fits = [_line(counts, ratios), _power(counts, ratios)]
    best = min(fits, key=lambda fit: float(np.mean(np.abs(fit(counts) / ratios - 1))))
    return lambda others: best(count(others))


def _line(counts: Floats, ratios: Floats) -> Callable[[Floats], Floats]:
    """Fit ratio = a + b x count, with the least relative error."""
    terms = np.column_stack([np.ones(len(counts)), counts])
    weights, *_ = np.linalg.lstsq(terms / ratios[:, None], np.ones(len(ratios)), rcond=None)
    return lambda others: weights[0] + weights[1] * others


def _power(counts: Floats, ratios: Floats) -> Callable[[Floats], Floats]:
    """Fit ratio = a x count^b."""
    slope, intercept = np.polyfit(np.log(counts), np.log(ratios), 1)
    return lambda others: np.exp(intercept + slope * np.log(others))
