"""Early stopping with several objectives, of which one is learned and the others are exact costs.

Asynchronous successive halving (ASHA, Li et al. 2020): a candidate that reaches a rung is compared
at once with all that reached it before. Candidates at a rung are ranked by non-dominated sorting
(Deb et al. 2002) and, within one front, by hypervolume contribution, over the exact costs and the
lowest loss up to that rung. A candidate goes on if it is among the best `1 / eta` of those that
cost about as much: it is neither stopped for the high loss of a cheap model nor spared because
there are many bad candidates at other costs. Where fewer than `eta` cost about as much, it goes on
if no candidate at all dominates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.search.interfaces import Array, Indices

_TINY = 1e-12


@dataclass(frozen=True)
class _LearningCurve:
    """A training as far as it was reported; costs as logarithms."""

    costs: tuple[float, ...]
    losses: tuple[float, ...]
    stopped_at: int | None = None


class EarlyStopping:
    """Decides, rung by rung, which trainings go on.

    Decisions follow from the reports so far alone. Losses at a rung are compared only with losses
    at that rung, never with those of finished trainings.

    Args:
        epochs: Epochs of a full training.
        eta: Reduction factor: one in `eta` of the candidates of about the same costs goes on.
        rungs: Epochs at whose end is decided; by default `grace * eta ** i`, below `epochs`.
        grace: Epochs that every training gets; by default a third of all, after which the order of
            losses is close to that at the end (rank correlation 0.9 on the table of
            `docs/search.md`, 0.7 after one epoch).
        region: Candidates cost about as much if no cost differs by more than this factor.
        extrapolate: Also stop, at any epoch from the third on, a candidate that stays dominated by
            the most optimistic extrapolation of its loss; rungs may then be empty.

    Raises:
        ValueError: naming the argument that is out of range.
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
        if self.rungs and epochs == 1:
            raise ValueError(f"rungs {list(self.rungs)}: a training of one epoch can have none")
        if any(not 1 <= rung < epochs for rung in self.rungs):
            raise ValueError(f"rungs {list(self.rungs)} must lie between 1 and {epochs - 1}")
        self._curves: dict[str, _LearningCurve] = {}
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
        curve = _LearningCurve(tuple(_log(costs)), tuple(map(float, losses[:epoch])))
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
        self._curves[digest] = _LearningCurve(
            tuple(_log(costs)), tuple(map(float, losses)), stopped_at
        )

    def resumable(self) -> list[str]:
        """Return the stopped candidates that would go on now, in the order they were reported.

        Candidates that were ahead of them at their rung have failed since, or were trained in full
        and turned out to be dominated, so they no longer count.
        """
        excluded = self._failed_or_dominated()
        return [
            digest
            for digest, curve in self._curves.items()
            if curve.stopped_at is not None and self._goes_on(digest, curve.stopped_at, excluded)
        ]

    def _failed_or_dominated(self) -> frozenset[str]:
        """Return the ended candidates that failed, or that another ended one dominates."""
        done = {digest: values for digest, values in self._final.items() if values is not None}
        failed = frozenset(self._final) - frozenset(done)
        if not done:
            return failed
        import moocore

        kept = moocore.is_nondominated(np.array(list(done.values())), keep_weakly=True)
        return failed | {digest for digest, stays in zip(done, kept, strict=True) if not stays}

    def _goes_on(self, digest: str, epoch: int, excluded: frozenset[str]) -> bool:
        if epoch in self.rungs and not self._promoted(digest, epoch, excluded):
            return False
        return not (self.extrapolate and self._stays_dominated(digest))

    def _promoted(self, digest: str, rung: int, excluded: frozenset[str]) -> bool:
        from moocore import pareto_rank

        reached = [name for name, curve in self._curves.items() if len(curve.losses) >= rung]
        if len(reached) < self.eta:
            return True
        names = [name for name in reached if name == digest or name not in excluded]
        curves = [self._curves[name] for name in names]
        # The lowest loss so far: the weights of that epoch are the ones that are kept.
        points = np.array([[*curve.costs, min(curve.losses[:rung])] for curve in curves])
        place, rank = names.index(digest), pareto_rank(points)
        # Costs are logarithms, so a factor is a difference; no cost may differ by more.
        apart = np.abs(points[:, :-1] - points[place, :-1]).max(axis=1)
        near = np.flatnonzero(apart <= np.log(self.region))
        if len(near) < self.eta:
            return bool(rank[place] == rank.min())
        ahead = np.count_nonzero(rank[near] < rank[place])
        ahead += _larger_contributions(points, near[rank[near] == rank[place]], near, place)
        return bool(ahead < -(-len(near) // self.eta))

    def _stays_dominated(self, digest: str) -> bool:
        """Whether a candidate that costs no more is ahead of the best loss that can be expected.

        The loss is extrapolated linearly in the logarithm of the epoch, a fall by the same amount
        at each doubling, with the steeper of the last two steps: the limit of power laws that
        slows down least, so the most optimistic of them.
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
    """Count the points of one front with a larger hypervolume contribution than that at `place`.

    Axes are scaled to [0, 1] over the points `near`; the reference point is 1.1 on every axis, so
    that the extreme points of the front contribute as well.
    """
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
