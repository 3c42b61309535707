"""The observations of the Pareto sampler, and the training data of its surrogate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.objectives import nondominated
from nas.search.candidates import on_scales
from nas.search.interfaces import Array, Mask
from search_spaces.axes import Assignment

_MOST_POINTS = 1000
"""Maximum number of points of a surrogate: the time of a fit grows with their third power."""


@dataclass(frozen=True)
class Observation:
    """A candidate that was evaluated or is being evaluated.

    Attributes:
        assignment: Its choices.
        features: (features,), the inputs of a surrogate that follow from the axes.
        costs: (costs,), on their scales (`nas.search.candidates.on_scales`); NaN where not known.
        excess: (limits,), predicted, as in `KnownLimits`.
        loss: The learned objective after a full training, minimised; None without one.
        pending: Whether its result is not known yet.
        violations: Limit -> value over limit minus 1; above 0 where the limit is exceeded.
        earlier: Whether it belongs to an earlier study. It is then a point of the surrogate, but
            not of the front.
        epoch_losses: Epoch -> loss during training.
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
        """Whether it exceeds none of the reported limits."""
        return all(violation <= 0 for violation in self.violations.values())


class History:
    """Every observation of a search, by digest.

    Args:
        learned: Position of the learned objective among the objectives.
        linear: (objectives,), those on a linear scale; the others are positive.
    """

    def __init__(self, learned: int, linear: Mask) -> None:
        self._learned, self.linear = learned, bool(linear[learned])
        self.linear_costs = np.delete(linear, learned)
        self._own: dict[str, Observation] = {}
        self._earlier: dict[str, Observation] = {}

    def add(self, digest: str, observation: Observation) -> None:
        """Add a candidate that is being evaluated."""
        self._own[digest] = observation

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Record the objective values of a candidate; None: rejected, stopped or failed."""
        known = self._own.get(digest)
        if known is None or not known.pending:
            return
        known = replace(known, pending=False, violations=dict(violations))
        self._own[digest] = known if values is None else self._valued(known, values)

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Record a loss during training. For a stopped candidate no other loss is known."""
        if known := self._own.get(digest):
            self._own[digest] = replace(known, epoch_losses={**known.epoch_losses, epoch: loss})

    def warm(self, digest: str, observation: Observation, values: Sequence[float]) -> None:
        """Add a finished candidate of an earlier study."""
        known = replace(observation, pending=False, earlier=True)
        self._earlier[digest] = self._valued(known, values)

    def _valued(self, known: Observation, values: Sequence[float]) -> Observation:
        costs = np.delete(np.asarray(values, dtype=np.float64), self._learned)
        scaled = on_scales(costs, self.linear_costs)
        return replace(known, loss=float(values[self._learned]), costs=scaled)

    @property
    def own(self) -> list[Observation]:
        """The candidates of this study, in the order they were added."""
        return list(self._own.values())

    @property
    def earlier(self) -> list[Observation]:
        """The candidates of an earlier study."""
        return list(self._earlier.values())

    @property
    def all(self) -> list[Observation]:
        """The candidates of the earlier study, then those of this one."""
        return [*self.earlier, *self.own]

    def front_losses(self) -> Array:
        """Return the losses of the non-dominated ones of this study's feasible candidates."""
        finished = [one for one in self.own if one.loss is not None and one.feasible]
        values = [[*one.costs, one.loss] for one in finished]
        losses = np.array([one.loss for one in finished], dtype=np.float64)
        return losses[nondominated(np.array(values, dtype=np.float64))]

    def training_data(self) -> tuple[list[Observation], Array]:
        """Return the points of the surrogate of the loss, and their losses (points,).

        A stopped candidate has the loss that it was expected to reach, a failed one the highest
        loss observed: without them the surrogate would propose their neighbours again. Of more than
        `_MOST_POINTS` points, the most recent ones fill one half, because they are nearer to the
        front; an evenly spaced selection of the others fills the other half.
        """
        found = [one.loss for one in self.all if one.loss is not None]
        data = []
        for one in self.all:
            if one.loss is not None:
                data.append((one, one.loss))
            elif not one.pending and one.feasible:
                expected = self.expected_loss(one)
                data.append((one, max(found) if expected is None else expected))
        if (surplus := len(data) - _MOST_POINTS) > 0:
            early = len(data) - _MOST_POINTS // 2
            even = np.linspace(0, early - 1, early - surplus).astype(int)
            data = [*(data[place] for place in even), *data[early:]]
        return [one for one, _ in data], np.array([loss for _, loss in data])

    def expected_loss(self, one: Observation) -> float | None:
        """Extrapolate the last loss during training to the end; None if there is no such loss.

        The loss is multiplied by the median, over the finished trainings, of final loss over loss
        at the same epoch. On a linear scale the median of the differences is added.
        """
        if not one.epoch_losses:
            return None
        epoch = max(one.epoch_losses)
        last = one.epoch_losses[epoch]
        pairs = [
            (other.loss, other.epoch_losses[epoch])
            for other in self._own.values()
            if other.loss is not None and epoch in other.epoch_losses
        ]
        if not pairs:
            return last
        if self.linear:
            return last + float(np.median([final - there for final, there in pairs]))
        return last * float(np.median([final / there for final, there in pairs]))


def surrogate_inputs(some: Sequence[Observation], exact: Mask) -> Array:
    """Return the inputs of a surrogate, (observations, inputs).

    They are the features, the costs in the columns that `exact` marks, and whether the observation
    belongs to an earlier study, whose protocol may have differed.

    Args:
        some: The observations.
        exact: (costs,), the columns of the costs that are inputs.
    """
    features, costs = np.array([one.features for one in some]), [one.costs for one in some]
    return np.column_stack([features, np.array(costs)[:, exact], [one.earlier for one in some]])
