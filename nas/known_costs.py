"""The objectives of an architecture that are known without building it, for thousands at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nas.operations import exact_costs
from nas.predictor import LatencyPredictor
from nas.search.members import learned
from search_spaces.architecture import Architecture

KnownCosts = Callable[[Sequence[Architecture]], npt.NDArray[np.float64]]


def known_costs(
    objectives: Sequence[str],
    predictor: LatencyPredictor | None = None,
    anchor_ms: float | None = None,
) -> KnownCosts:
    """Return a function that gives all objectives but the learned one: (architectures, k - 1).

    Parameters and MACs are exact. A latency is the predicted one, told in `anchor_ms` of
    `original`. What is not known this way is NaN.
    """
    names = [name for name in objectives if name != learned(objectives)]

    def costs(architectures: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        counted = exact_costs(architectures)
        known: dict[str, npt.NDArray[np.float64]] = {
            name: column.astype(np.float64) for name, column in counted.items()
        }
        known["flops"] = 2 * known["macs"]
        if predictor is not None and any("latency" in name for name in names):
            predicted_ms = predictor.predict_ms(architectures, anchor_ms)
            known |= {"latency_ms": predicted_ms, "predicted_latency_ms": predicted_ms}
        unknown = np.full(len(architectures), np.nan)
        columns = [known.get(name, unknown) for name in names]
        return np.stack(columns, axis=1).astype(np.float64)

    return costs
