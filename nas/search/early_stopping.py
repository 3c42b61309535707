"""Stop trainings that cannot matter any more, with several objectives of which one is learned.

Asynchronous successive halving (Li et al. 2020): a candidate that reaches a rung is compared at
once with all that reached it before. The order at a rung is that of non-dominated sorting and, in
one front, of hypervolume contribution, over the exact costs and the loss at that rung. Whether a
candidate is among the best `1 / eta` is asked of those that cost about as much: it is not stopped
for being cheap, nor spared because there are many bad ones elsewhere. One that is alone at its
costs goes on unless another is better in everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_TINY = 1e-12


@dataclass(frozen=True)
class _Curve:
    """A training as far as it was reported; costs as logarithms."""

    costs: tuple[float, ...]
    losses: tuple[float, ...]
    stopped_at: int | None = None


class EarlyStopping:
    """Decides, rung by rung, which trainings go on.

    Decisions follow from the reports so far alone. Losses at a rung are compared with each other
    and never with those of finished trainings; they are no points of a front.

    Args:
        epochs: Epochs of a full training.
        eta: One in `eta` goes on where a cost region is crowded.
        rungs: Epochs after which is decided; by default `grace * eta ** i`, below `epochs`.
        grace: Epochs that every training gets; by default a third of all, after which losses tell
            the order at the end (rank correlation 0.9 on `docs/search.md`'s table, 0.7 after one).
        region: Candidates cost about as much if no cost differs by more than this factor.
        extrapolate: Also stop, at any epoch from the third on, what stays dominated however well
            its loss goes on falling; rungs may then be empty.

    Raises:
        ValueError: naming the argument that cannot be.
    """

    def __init__(
        self,
        epochs: int,
        eta: int = 3,
        rungs: Sequence[int] | None = None,
        grace: int | None = None,
        region: float = 2.0,
        extrapolate: bool = False,
    ) -> None:
        grace = max(1, epochs // 3) if grace is None else grace
        if epochs < 1 or grace < 1:
            raise ValueError(f"epochs {epochs} and grace {grace} must be at least 1")
        if eta < 2:
            raise ValueError(f"eta {eta} must be at least 2: one in eta goes on")
        self.epochs, self.eta, self.extrapolate = epochs, eta, extrapolate
        self.region = region
        self.rungs = _powers(grace, eta, epochs) if rungs is None else tuple(sorted(set(rungs)))
        if region < 1:
            raise ValueError(f"region {region} must be at least 1: a factor between costs")
        if any(not 1 <= rung < epochs for rung in self.rungs):
            raise ValueError(f"rungs {list(self.rungs)} must lie between 1 and {epochs - 1}")
        self._curves: dict[str, _Curve] = {}
        self._protected: set[str] = set()
        self._final: dict[str, tuple[float, ...] | None] = {}

    def protect(self, digest: str) -> None:
        """Never stop this candidate: a reference."""
        self._protected.add(digest)

    def report(
        self, digest: str, epoch: int, costs: Sequence[float], losses: Sequence[float]
    ) -> bool:
        """Return whether a training goes on after `epoch`.

        Args:
            digest: Of the candidate; reported again after it was stopped, it was resumed.
            epoch: Epochs done, from 1.
            costs: The exact objectives, positive.
            losses: Of the epochs so far, lower is better.
        """
        curve = _Curve(tuple(_log(costs)), tuple(map(float, losses[:epoch])))
        self._curves[digest] = curve
        if digest in self._protected or epoch >= self.epochs:
            return True
        goes_on = self._goes_on(digest, epoch, frozenset())
        if not goes_on:
            self._curves[digest] = replace(curve, stopped_at=epoch)
        return goes_on

    def finished(self, digest: str, values: Sequence[float] | None) -> None:
        """Say how a full training ended: all its objectives in any one order; None: it failed."""
        self._final[digest] = None if values is None else tuple(map(float, values))

    def restore(
        self, digest: str, costs: Sequence[float], losses: Sequence[float], stopped: bool
    ) -> None:
        """Take over a training of an earlier session as it was decided then."""
        stopped_at = len(losses) if stopped else None
        self._curves[digest] = _Curve(tuple(_log(costs)), tuple(map(float, losses)), stopped_at)

    def resumable(self) -> list[str]:
        """Return the stopped candidates that would go on now, in the order they were reported.

        The front has moved towards them: candidates that were ahead of them at their rung have
        failed, or were finished and are dominated.
        """
        aside = self._beaten()
        return [
            digest
            for digest, curve in self._curves.items()
            if curve.stopped_at is not None and self._goes_on(digest, curve.stopped_at, aside)
        ]

    def _beaten(self) -> frozenset[str]:
        """Finished candidates that turned out not to matter."""
        done = {digest: values for digest, values in self._final.items() if values is not None}
        failed = frozenset(self._final) - frozenset(done)
        if not done:
            return failed
        import moocore

        kept = moocore.is_nondominated(np.array(list(done.values())), keep_weakly=True)
        return failed | {digest for digest, stays in zip(done, kept, strict=True) if not stays}

    def _goes_on(self, digest: str, epoch: int, aside: frozenset[str]) -> bool:
        if epoch in self.rungs and not self._promoted(digest, epoch, aside):
            return False
        return not (self.extrapolate and self._hopeless(digest))

    def _promoted(self, digest: str, rung: int, aside: frozenset[str]) -> bool:
        from moocore import pareto_rank

        reached = [name for name, curve in self._curves.items() if len(curve.losses) >= rung]
        if len(reached) < self.eta:
            return True
        names = [name for name in reached if name == digest or name not in aside]
        curves = [self._curves[name] for name in names]
        points = np.array([[*curve.costs, min(curve.losses[:rung])] for curve in curves])
        place, rank = names.index(digest), pareto_rank(points)
        apart = np.abs(points[:, :-1] - points[place, :-1]).max(axis=1)
        near = np.flatnonzero(apart <= np.log(self.region))
        if len(near) < self.eta:
            return bool(rank[place] == rank.min())
        ahead = np.count_nonzero(rank[near] < rank[place])
        ahead += _larger_contributions(points, near[rank[near] == rank[place]], near, place)
        return bool(ahead < -(-len(near) // self.eta))

    def _hopeless(self, digest: str) -> bool:
        """Whether others that cost no more are ahead of the best a training may still come to.

        The slowest of all power laws, a fall by as much at each doubling of the epochs, is the most
        optimistic; it starts from the steeper of the last two steps.
        """
        curve = self._curves[digest]
        losses = np.array(curve.losses)
        if len(losses) < 3:
            return False
        steps = np.arange(len(losses) - 2, len(losses))
        falls = (losses[steps - 1] - losses[steps]) / np.log((steps + 1) / steps)
        reached = losses.min() - max(float(falls.max()), 0) * np.log(self.epochs / len(losses))
        return any(
            min(other.losses) < reached
            for name, other in self._curves.items()
            if name != digest and all(np.less_equal(other.costs, curve.costs))
        )


def _larger_contributions(points: Array, front: Indices, near: Indices, place: int) -> int:
    """Count those of one front that contribute more hypervolume to it, in this region, than one."""
    from moocore import hv_contributions

    low, high = points[near].min(axis=0), points[near].max(axis=0)
    scaled = (points[front] - low) / np.maximum(high - low, _TINY)
    contributions = hv_contributions(scaled, ref=np.full(points.shape[1], 1.1))
    return int(np.count_nonzero(contributions > contributions[front == place]))


def _powers(first: int, factor: int, below: int) -> tuple[int, ...]:
    found = []
    while first < below:
        found.append(first)
        first *= factor
    return tuple(found)


def _log(costs: Sequence[float]) -> list[float]:
    return [float(np.log(max(cost, _TINY))) for cost in costs]
