"""Tables of architectures whose objectives are all known, and how well a set of them does.

A table answers in microseconds what an evaluation would have found, so a sampler can be run from
many seeds, and the exact front, hence the exact regret, is known.
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
    """What a space builds from an assignment: anything that a digest identifies."""

    @property
    def digest(self) -> str:
        """Equal exactly for equal networks."""


@dataclass(frozen=True)
class TableEntry:
    """What is known of one architecture.

    Attributes:
        digest: Its identity.
        assignment: Its choices in the space.
        costs: Objectives known before training, in the table's order.
        losses: The learnt objective after each epoch, of the weights kept by then; the last is
            what a full training gives.
        epoch_s: Seconds that each epoch took.
    """

    digest: str
    assignment: Mapping[str, Any]
    costs: tuple[float, ...]
    losses: tuple[float, ...]
    epoch_s: tuple[float, ...]

    @property
    def values(self) -> list[float]:
        """All objectives after the last epoch, the learnt one first."""
        return [self.losses[-1], *self.costs]


@dataclass(frozen=True)
class Table:
    """A space whose every member has been evaluated. All objectives are minimised.

    Attributes:
        name: For people.
        space: Where the entries' assignments come from.
        objectives: Names, the learnt one first.
        entries: By digest.
        timed: Whether `epoch_s` was measured; otherwise an epoch counts as one second.
        features: What is known of the structure beyond the axes: assignments -> (n, features).
    """

    name: str
    space: Space
    objectives: tuple[str, ...]
    entries: Mapping[str, TableEntry]
    timed: bool = True
    features: Features | None = None

    @cached_property
    def epochs(self) -> int:
        """Epochs of a full evaluation."""
        return max(len(one.losses) for one in self.entries.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change with any value of the table."""
        rows = [(one.digest, one.costs, one.losses, one.epoch_s) for one in self.entries.values()]
        return hashlib.sha256(json.dumps([self.objectives, rows]).encode()).hexdigest()[:12]

    @cached_property
    def volume(self) -> Volume:
        """Hypervolume as a share of what the whole table dominates."""
        return Volume(np.asarray([one.values for one in self.entries.values()], dtype=np.float64))


class Volume:
    """Exact hypervolume against a fixed reference point: the worst value on each axis.

    The first axis (the loss, the error) is linear, the others (costs) are logarithms; each is then
    scaled to 0 (best) to 1 (worst) over the whole table. A point that is worst on an axis dominates
    no volume. The share does not depend on the scaling, only on the logarithms.
    """

    def __init__(self, points: Array) -> None:
        scaled = _scaled(points)
        self._low, self._high = scaled.min(axis=0), scaled.max(axis=0)
        self.full = self._hypervolume(self.normalised(points))

    def normalised(self, points: Array) -> Array:
        """Return the points on the axes on which volume is taken."""
        return np.asarray((_scaled(points) - self._low) / (self._high - self._low))

    def regret(self, points: Array) -> float:
        """Return the share of the table's hypervolume that `points` lack: 0 is the exact front."""
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
    """The non-dominated points met so far, and the regret they leave."""

    def __init__(self, volume: Volume) -> None:
        self._volume, self._front = volume, np.empty((0, 0))
        self.regret = 1.0

    def add(self, values: list[float]) -> float:
        """Take in one point and return the regret."""
        point = np.asarray([values], dtype=np.float64)
        if self._front.size and bool((self._front <= point).all(axis=1).any()):
            return self.regret
        kept = self._front[~(point <= self._front).all(axis=1)] if self._front.size else point[:0]
        self._front = np.vstack([kept, point])
        self.regret = self._volume.regret(self._front)
        return self.regret
