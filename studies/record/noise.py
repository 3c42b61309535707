"""Seed noise: how much a loss differs between trainings that differ in their seed alone.

The standard deviation is pooled over all models that were trained with two or more seeds. Of a
loss that is compared by factors it is that of the logarithm, a relative one, so that one number
serves losses of any size; of one that is compared by differences, that of the values. From it
follow the interval of every loss and the test of a difference between two models, both by Student's
t with the pooled degrees of freedom. Claims about many models are corrected by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

LEVEL = 0.05
"""Probability of a wrong claim among all claims of a study; intervals cover 1 minus this."""

Key = TypeVar("Key", bound=Hashable)
Other = TypeVar("Other", bound=Hashable)


@dataclass(frozen=True)
class Mean:
    """The mean loss of a model, and the number of trainings that it rests on."""

    value: float
    trainings: int


@dataclass(frozen=True)
class SeedNoise:
    """The seed-to-seed noise of a loss.

    Attributes:
        deviation: Standard deviation of the logarithm of the loss, 0.01 is one per cent; or of the
            loss itself, in its unit.
        freedom: Degrees of freedom: trainings minus models.
        models: Number of models that were trained with two or more seeds.
        trainings: Number of their trainings.
        duration_s: Time of the trainings that were made for this, in seconds.
        relative: Whether the deviation is that of the logarithm.
    """

    deviation: float
    freedom: int
    models: int
    trainings: int
    duration_s: float = 0.0
    relative: bool = True

    @classmethod
    def pooled(
        cls,
        losses: Iterable[Sequence[float]],
        duration_s: float = 0.0,
        *,
        relative: bool = True,
    ) -> SeedNoise | None:
        """Pool the variances of several models; None if no model was trained twice.

        Args:
            losses: The losses of each model, one per seed; above zero if `relative`. None of them
                may have been the reason for choosing its model.
            duration_s: Time of the trainings that were made for this, in seconds.
            relative: Whether to take the deviation of the logarithm.
        """
        values = [np.asarray(one, dtype=np.float64) for one in losses if len(one) > 1]
        repeated = [np.log(one) if relative else one for one in values]
        if not repeated:
            return None
        trainings = sum(len(one) for one in repeated)
        freedom = trainings - len(repeated)
        squares = sum(float(((one - one.mean()) ** 2).sum()) for one in repeated)
        deviation = math.sqrt(squares / freedom)
        return cls(deviation, freedom, len(repeated), trainings, duration_s, relative)

    def interval(self, mean: Mean) -> tuple[float, float]:
        """Return the 95 % interval of a model's loss: mean -+ t s / sqrt(n).

        If the deviation is relative, this is on the logarithm.
        """
        from scipy.stats import t

        reach = float(t.ppf(1 - LEVEL / 2, self.freedom)) * self.deviation
        reach /= math.sqrt(mean.trainings)
        if not self.relative:
            return mean.value - reach, mean.value + reach
        factor = math.exp(min(reach, 700))  # the exponential of more than 709 overflows a double
        return mean.value / factor, mean.value * factor

    def p_values(self, ours: Sequence[Mean], theirs: Sequence[Mean]) -> npt.NDArray[np.float64]:
        """Return the p-value of each difference, (ours, theirs): two-sided, without correction."""
        from scipy.stats import t

        a, n = _columns(ours)
        b, m = _columns(theirs)
        if self.relative:
            a, b = np.log(a), np.log(b)
        difference = np.abs(a[:, None] - b[None, :])
        error = self.deviation * np.sqrt(1 / n[:, None] + 1 / m[None, :])
        size = np.divide(
            difference, error, out=np.where(difference > 0, np.inf, 0.0), where=error > 0
        )
        found: npt.NDArray[np.float64] = 2 * t.sf(size, self.freedom)
        return found

    def differ(self, one: Mean, other: Mean) -> bool:
        """Return whether two losses differ by more than the noise: one test, not corrected."""
        return bool(self.p_values([one], [other])[0, 0] < LEVEL)


def certain_pairs(
    noise: SeedNoise, ours: Mapping[Key, Mean], theirs: Mapping[Other, Mean], level: float
) -> set[tuple[Key, Other]]:
    """Return the pairs of models whose losses differ, all claims together at a level.

    Args:
        noise: The noise of the loss.
        ours: Models, by any key.
        theirs: The models that each of them is compared with.
        level: Probability that any of the claims is wrong.
    """
    if not ours or not theirs:
        return set()
    p_values = noise.p_values(list(ours.values()), list(theirs.values()))
    pairs = [(a, b) for a in ours for b in theirs]
    return {pair for pair, sure in zip(pairs, holm(p_values.ravel(), level), strict=True) if sure}


def holm(p_values: npt.NDArray[np.float64], level: float) -> npt.NDArray[np.bool_]:
    """Mark the rejected hypotheses by Holm's step-down method (Holm 1979).

    The probability of rejecting any true hypothesis is at most `level`, whatever the dependence.
    """
    order = np.argsort(p_values, kind="stable")
    bounds = level / np.arange(len(order), 0, -1)
    passed = np.logical_and.accumulate(p_values[order] <= bounds)
    found = np.zeros(len(order), dtype=bool)
    found[order] = passed
    return found


def _columns(
    means: Sequence[Mean],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values = np.array([mean.value for mean in means], dtype=np.float64)
    return values, np.array([mean.trainings for mean in means], dtype=np.float64)
