"""Two models on the same images: by how much they differ, and how sure that is."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from studies.paper.stored import Array

Verdict = Literal["holds", "does not hold", "undecided"]

_RESAMPLES, _CHUNK = 1000, 100


class Difference(NamedTuple):
    """`modified` less `original`, with a 95 % interval over the images (or pairs of them)."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_difference(original: Array, modified: Array, seed: int = 0) -> Difference:
    """Return the mean difference of paired values `(n,)`; values that are not finite are left out.

    The interval is a percentile bootstrap over the pairs; fewer than two leave it infinite.
    """
    differences = np.asarray(modified, np.float64) - np.asarray(original, np.float64)
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        value = float(differences.mean()) if len(differences) else float("nan")
        return Difference(value, float("-inf"), float("inf"))
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            differences[rng.integers(len(differences), size=(_CHUNK, len(differences)))].mean(1)
            for _ in range(_RESAMPLES // _CHUNK)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(differences.mean()), float(low), float(high))


def verdict_of(difference: Difference, claimed_sign: int) -> Verdict:
    """Judge the statement that `modified` is higher (1) or lower (-1) than `original`."""
    if difference.sign == 0:
        return "undecided"
    return "holds" if difference.sign == claimed_sign else "does not hold"
