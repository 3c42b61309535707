"""Paired differences of two models on the same images, with confidence intervals."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from studies.paper.stored import Array

Verdict = Literal["holds", "does not hold", "undecided", "not judged"]
"""`not judged`: a model has not learned, so nothing follows from its losses and latents."""

_RESAMPLES, _CHUNK = 1000, 100


class Difference(NamedTuple):
    """`modified` minus `original`, with a 95 % interval over images or pairs of images."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies on one side of zero, otherwise 0."""
        return int(self.low > 0) - int(self.high < 0)


def paired_difference(original: Array, modified: Array, seed: int = 0) -> Difference:
    """Return the mean difference of paired values `(n,)`, ignoring values that are not finite.

    The interval is a percentile bootstrap over the pairs; with fewer than two it is infinite.
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
    """Return the verdict on the claim that `modified` is higher (1) or lower (-1)."""
    if difference.sign == 0:
        return "undecided"
    return "holds" if difference.sign == claimed_sign else "does not hold"
