"""What the Pareto sampler has seen: candidates, their values, and what a surrogate learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.search.candidates import logarithms
from nas.search.interfaces import Array, Mask
from search_spaces.axes import Assignment

_MOST_POINTS = 1000
"""Most candidates that a surrogate is fitted to: the time of a fit grows with their cube."""


@dataclass(frozen=True)
class Observation:
    """A candidate that was tried or is being tried.

    Attributes:
        assignment: Its choices.
        features: (features,), as a surrogate sees them.
        costs: (costs,), logarithms; NaN where not known.
        excess: (limits,), predicted, as in `KnownLimits`.
        loss: The learned objective after a full training.
        pending: Its result is not known yet.
        violations: By how much it misses each limit, relative.
        earlier: It is of an earlier study: data of the surrogate, but no point of the front.
        epoch_losses: Epoch -> loss while in training.
    """

    assignment: Assignment
    features: Array
    costs: Array
    excess: Array
    loss: float | None = None
    pending: bool = True
    violations: Mapping[str, float] = field(default_factory=dict)
    earlier: bool = False
    epoch_losses: Mapping[int, float] = field(default_factory=dict)

    @property
    def feasible(self) -> bool:
        """Whether it misses none of the limits that were asked of it."""
        return all(violation <= 0 for violation in self.violations.values())


class History:
    """Every observation of a search, by digest.

    Args:
        learned: Position of the learned objective among all.
    """

    def __init__(self, learned: int) -> None:
        self._learned = learned
        self._own: dict[str, Observation] = {}
        self._earlier: dict[str, Observation] = {}

    def add(self, digest: str, observation: Observation) -> None:
        """Note a candidate that is being tried."""
        self._own[digest] = observation

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Note how a candidate ended; None: rejected, stopped or failed."""
        known = self._own.get(digest)
        if known is None or not known.pending:
            return
        known = replace(known, pending=False, violations=dict(violations))
        self._own[digest] = known if values is None else self._valued(known, values)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Note a loss while in training; of a stopped candidate it is all there is."""
        if known := self._own.get(digest):
            self._own[digest] = replace(known, epoch_losses={**known.epoch_losses, epoch: loss})

    def warm(self, digest: str, observation: Observation, values: Sequence[float]) -> None:
        """Note a finished candidate of an earlier study."""
        known = replace(observation, pending=False, earlier=True)
        self._earlier[digest] = self._valued(known, values)

    def _valued(self, known: Observation, values: Sequence[float]) -> Observation:
        costs = np.delete(np.asarray(values, dtype=np.float64), self._learned)
        return replace(known, loss=float(values[self._learned]), costs=logarithms(costs))

    @property
    def own(self) -> list[Observation]:
        """The candidates of this study, in the order they were tried."""
        return list(self._own.values())

    @property
    def earlier(self) -> list[Observation]:
        """The candidates of an earlier study."""
        return list(self._earlier.values())

    @property
    def all(self) -> list[Observation]:
        """The candidates of both."""
        return [*self.earlier, *self.own]

    def training_data(self) -> tuple[list[Observation], Array]:
        """Return what the surrogate of the loss is fitted to: candidates and their losses.

        A stopped candidate counts with the loss it was expected to reach, a failed one with the
        highest loss. Of very many, the later half is kept, which is nearer to the front, and of the
        earlier ones an evenly spaced choice.
        """
        found = [one.loss for one in self.all if one.loss is not None]
        data = []
        for one in self.all:
            if one.loss is not None:
                data.append((one, one.loss))
            elif not one.pending and one.feasible:
                data.append((one, self.expected_loss(one) or max(found)))
        if (surplus := len(data) - _MOST_POINTS) > 0:
            early = len(data) - _MOST_POINTS // 2
            even = np.linspace(0, early - 1, early - surplus).astype(int)
            data = [*(data[place] for place in even), *data[early:]]
        return [one for one, _ in data], np.array([loss for _, loss in data])

    def expected_loss(self, one: Observation) -> float | None:
        """Extrapolate the last loss in training to a full one; None if there is no such loss.

        The factor is the median ratio of the two losses over the finished trainings.
        """
        if not one.epoch_losses:
            return None
        epoch = max(one.epoch_losses)
        ratios = [
            other.loss / other.epoch_losses[epoch]
            for other in self._own.values()
            if other.loss is not None and epoch in other.epoch_losses
        ]
        return one.epoch_losses[epoch] * (float(np.median(ratios)) if ratios else 1.0)


def surrogate_inputs(some: Sequence[Observation], exact: Mask) -> Array:
    """Return what a surrogate sees of observations: (observations, inputs).

    Features, the costs that are `exact` (a mask of columns), and whether the study is an earlier
    one: its protocol may have been another.
    """
    features, costs = np.array([one.features for one in some]), [one.costs for one in some]
    return np.column_stack([features, np.array(costs)[:, exact], [one.earlier for one in some]])
