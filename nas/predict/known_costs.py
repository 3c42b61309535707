"""The objectives and limits of architectures that are known without building them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nas.predict.operations import exact_costs
from nas.predict.predictor import LatencyPredictor
from nas.search.interfaces import KnownLimits, learned
from search_spaces.architecture import Architecture

KnownCosts = Callable[[Sequence[Architecture]], npt.NDArray[np.float64]]
"""Architectures -> (architectures, costs); NaN in columns that are not known."""

_COUNTED = ("params", "macs", "flops")


def known_costs(
    objectives: Sequence[str],
    predictor: LatencyPredictor | None = None,
    anchor_ms: float | None = None,
) -> KnownCosts:
    """Return a function from architectures to all objectives except the learned one.

    Parameters, MACs and FLOPs are exact. A latency is predicted, in milliseconds where `original`
    takes `anchor_ms`. Other objectives are NaN.
    """
    names = [name for name in objectives if name != learned(objectives)]

    def costs(architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        known = _counted(architectures)
        if predictor is not None and any("latency" in name for name in names):
            predicted_ms = predictor.predict_ms(architectures, anchor_ms)
            known |= {"latency_ms": predicted_ms, "predicted_latency_ms": predicted_ms}
        unknown = np.full(len(architectures), np.nan)
        columns = [known.get(name, unknown) for name in names]
        return np.stack(columns, axis=1).astype(np.float64)

    return costs


def known_limits(
    limits: Mapping[str, float],
    predictor: LatencyPredictor | None = None,
    anchor_ms: float | None = None,
) -> KnownLimits | None:
    """Return the limits whose excess is known without building a network; None if there are none.

    Parameters, MACs, FLOPs and a predicted latency are exact. A measured latency is predicted if
    there is a predictor.
    """
    timed = [name for name in limits if "latency" in name] if predictor else []
    names = tuple(name for name in limits if name in (*_COUNTED, *timed))
    if not names:
        return None

    def excess(architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        known = _counted(architectures)
        if predictor is not None and timed:
            predicted_ms = predictor.predict_ms(architectures, anchor_ms)
            known |= {"latency_ms": predicted_ms, "predicted_latency_ms": predicted_ms}
        columns = [np.log(known[name] / limits[name]) for name in names]
        return np.stack(columns, axis=1)

    return KnownLimits(names, frozenset(names) & {"latency_ms"}, excess)


def _counted(architectures: Sequence[Architecture]) -> dict[str, npt.NDArray[np.float64]]:
    counted = exact_costs(architectures)
    params, macs = counted["params"].astype(np.float64), counted["macs"].astype(np.float64)
    return dict(zip(_COUNTED, (params, macs, 2 * macs), strict=True))
