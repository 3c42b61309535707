"""Tables of architectures whose objective values are all known, and the regret of a subset.

Reading a table takes microseconds instead of an evaluation, so a sampler can be run with many
seeds. The exact front is known, and therefore the exact regret.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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

    def observed(self, noise: float, seed: int) -> Table:
        """Return the table as other seeds of its trainings would have made it.

        All losses of an entry are multiplied by one lognormal factor.

        Args:
            noise: Standard deviation of the factor's logarithm; 0 returns the table itself.
            seed: Seed of the factors.
        """
        if not noise:
            return self
        luck = np.exp(noise * np.random.default_rng(seed).standard_normal(len(self.entries)))
        entries = {
            digest: replace(one, losses=tuple((factor * np.array(one.losses)).tolist()))
            for factor, (digest, one) in zip(luck.tolist(), self.entries.items(), strict=True)
        }
        return replace(self, entries=entries)

    @cached_property
    def volume(self) -> Volume:
        """Hypervolume of points, relative to that of the whole table."""
        return Volume(np.asarray([one.values for one in self.entries.values()], dtype=np.float64))


@dataclass(frozen=True)
class Quality:
    """How near a set of points is to the exact front: each figure is 0 for the front, else more.

    Attributes:
        regret: Share of the exact front's hypervolume that the points lack.
        accurate: The same on the accurate half: the hypervolume up to the median loss of the exact
            front.
        igd_plus: IGD+ (Ishibuchi et al. 2015): the mean, over the exact front, of the distance by
            which the nearest point is worse. Each axis ranges from 0 to 1 over the table.
        lowest: Lowest loss over that of the table, minus 1.
    """

    regret: float
    accurate: float
    igd_plus: float
    lowest: float


METRICS = tuple(one.name for one in fields(Quality))
"""Names of the figures in `Quality`."""


class Volume:
    """The exact front of a table, and how near a set of points is to it.

    The first axis (the loss or error) is linear, the others (costs) are logarithmic; each is then
    scaled to [0, 1] from the best to the worst value of the table. The reference point of the
    hypervolume is the worst value on each axis: a point that is worst on an axis dominates no
    volume. For the accurate half, its loss is the median loss of the exact front.
    """

    def __init__(self, points: Array) -> None:
        import moocore

        scaled = _scaled(points)
        self._low, self._high = scaled.min(axis=0), scaled.max(axis=0)
        normalised = self.normalised(points)
        self._front = normalised[moocore.is_nondominated(normalised)]
        self._ends = 1.0, float(np.median(self._front[:, 0]))
        self._full = [self._hypervolume(self._front, end) for end in self._ends]
        self._lowest = float(points[:, 0].min())

    def normalised(self, points: Array) -> Array:
        """Return (n, objectives) points on the scaled axes, on which the volume is computed."""
        return np.asarray((_scaled(points) - self._low) / (self._high - self._low))

    def regret(self, points: Array) -> float:
        """Return the share of the table's hypervolume that `points` lack; 0 for the exact front."""
        return self.quality(points).regret

    def quality(self, points: Array) -> Quality:
        """Judge points of the table, (n, objectives); without any, the worst value on each axis."""
        import moocore

        found = self.normalised(points) if len(points) else np.ones((1, self._front.shape[1]))
        whole, accurate = (
            max(0.0, 1.0 - self._hypervolume(found, end) / full) if full else 0.0
            for end, full in zip(self._ends, self._full, strict=True)
        )
        lowest = self._low[0] + found[:, 0].min() * (self._high[0] - self._low[0])
        return Quality(
            regret=whole,
            accurate=accurate,
            igd_plus=float(moocore.igd_plus(found, ref=self._front)),
            lowest=max(0.0, float(lowest) / self._lowest - 1.0) if self._lowest > 0 else 0.0,
        )

    @staticmethod
    def _hypervolume(points: Array, highest_loss: float) -> float:
        """Return the hypervolume of normalised points up to a loss, and to 1 on the other axes."""
        import moocore

        reference = np.array([highest_loss, *[1.0] * (points.shape[1] - 1)])
        inside = points[(points < reference).all(axis=1)]
        if not len(inside):
            return 0.0
        front = inside[moocore.is_nondominated(inside)]
        return float(moocore.hypervolume(front, ref=reference))


def _scaled(points: Array) -> Array:
    return np.column_stack([points[:, 0], np.log(points[:, 1:])])


class Archive:
    """The points so far that are not dominated as observed, and their quality as they are."""

    def __init__(self, volume: Volume) -> None:
        self._volume, self._front, self._true = volume, np.empty((0, 0)), np.empty((0, 0))
        self.quality = volume.quality(self._true)

    def add(self, values: Sequence[float], true: Sequence[float] | None = None) -> Quality:
        """Add one point and return the new quality.

        Args:
            values: The values as observed, by which the front is chosen.
            true: The values by which it is judged; those observed by default.
        """
        point = np.asarray([values], dtype=np.float64)
        real = point if true is None else np.asarray([true], dtype=np.float64)
        if self._front.size and bool((self._front <= point).all(axis=1).any()):
            return self.quality
        if self._front.size:
            stays = ~(point <= self._front).all(axis=1)
            point = np.vstack([self._front[stays], point])
            real = np.vstack([self._true[stays], real])
        self._front, self._true = point, real
        self.quality = self._volume.quality(real)
        return self.quality
