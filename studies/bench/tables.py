"""Tables of architectures whose objective values are all known, and the regret of a subset.

Reading a table takes microseconds instead of an evaluation, so a sampler can be run with many
seeds. The exact front is known, and therefore the exact regret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from nas.search.interfaces import Array, Features, Space


class Network(Protocol):
    """A member of a space: anything that a digest identifies."""

    @property
    def digest(self) -> str:
        """Identity: equal for equal networks and only for them."""


@dataclass(frozen=True)
class TableEntry:
    """The recorded results of one architecture.

    Attributes:
        digest: Its identity.
        assignment: Its choices in the space.
        costs: Values of the objectives that are known before training, in the table's order.
        losses: The learned objective after each epoch, of the best weights so far; the last is
            the result of a full training.
        epoch_s: Duration of each epoch in seconds.
    """

    digest: str
    assignment: Mapping[str, Any]
    costs: tuple[float, ...]
    losses: tuple[float, ...]
    epoch_s: tuple[float, ...]

    @property
    def values(self) -> list[float]:
        """All objective values after the last epoch, the learned one first."""
        return [self.losses[-1], *self.costs]


@dataclass(frozen=True)
class Table:
    """A space whose every member has been evaluated. All objectives are minimised.

    Attributes:
        name: Name of the table.
        space: The space of the entries' assignments.
        objectives: Names of the objectives, the learned one first.
        entries: Digest -> results.
        timed: Whether `epoch_s` was measured; otherwise an epoch counts as one second.
        features: Function from n assignments to an (n, features) array that describes their
            structure beyond the axes, or None.
    """

    name: str
    space: Space
    objectives: tuple[str, ...]
    entries: Mapping[str, TableEntry]
    timed: bool = True
    features: Features | None = None

    @cached_property
    def epochs(self) -> int:
        """Number of epochs of a full training."""
        return max(len(one.losses) for one in self.entries.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change with any value of the table."""
        rows = [(one.digest, one.costs, one.losses, one.epoch_s) for one in self.entries.values()]
        return hashlib.sha256(json.dumps([self.objectives, rows]).encode()).hexdigest()[:12]

    @cached_property
    def volume(self) -> Volume:
        """Hypervolume of points, relative to that of the whole table."""
        return Volume(np.asarray([one.values for one in self.entries.values()], dtype=np.float64))


class Volume:
    """Exact hypervolume with a fixed reference point: the worst value on each axis.

    The first axis (the loss or error) is linear, the others (costs) are logarithmic; each is then
    scaled to [0, 1] from the best to the worst value of the table. A point that is worst on an axis
    dominates no volume. The regret does not depend on the scaling, only on the logarithms.
    """

    def __init__(self, points: Array) -> None:
        scaled = _scaled(points)
        self._low, self._high = scaled.min(axis=0), scaled.max(axis=0)
        self.full = self._hypervolume(self.normalised(points))

    def normalised(self, points: Array) -> Array:
        """Return (n, objectives) points on the scaled axes, on which the volume is computed."""
        return np.asarray((_scaled(points) - self._low) / (self._high - self._low))

    def regret(self, points: Array) -> float:
        """Return the share of the table's hypervolume that `points` lack; 0 for the exact front."""
        return max(0.0, 1.0 - self._hypervolume(self.normalised(points)) / self.full)

    @staticmethod
    def _hypervolume(points: Array) -> float:
        import moocore

        inside = points[(points < 1).all(axis=1)]
        if not len(inside):
            return 0.0
        front = inside[moocore.is_nondominated(inside)]
        return float(moocore.hypervolume(front, ref=np.ones(front.shape[1])))


def _scaled(points: Array) -> Array:
    return np.column_stack([points[:, 0], np.log(points[:, 1:])])


class Archive:
    """The non-dominated points so far, and their regret."""

    def __init__(self, volume: Volume) -> None:
        self._volume, self._front = volume, np.empty((0, 0))
        self.regret = 1.0

    def add(self, values: list[float]) -> float:
        """Add one point and return the new regret."""
        point = np.asarray([values], dtype=np.float64)
        if self._front.size and bool((self._front <= point).all(axis=1).any()):
            return self.regret
        kept = self._front[~(point <= self._front).all(axis=1)] if self._front.size else point[:0]
        self._front = np.vstack([kept, point])
        self.regret = self._volume.regret(self._front)
        return self.regret
