"""Early stopping with several objectives: one is learned, the others are exact costs.

Asynchronous successive halving (ASHA, Li et al. 2020): a candidate that reaches a rung is compared
immediately with all that reached it before. Candidates at a rung are ranked by non-dominated
sorting (Deb et al. 2002) and, within one front, by hypervolume contribution. Both use the exact
costs and the lowest loss up to that rung.

ASHA ranks all candidates together. Here a candidate continues if it is among the best `1 / eta` of
those with about the same costs: a cheap model is not stopped because its loss is high, and a bad
one does not continue because candidates at other costs are worse. If fewer than `eta` candidates
have about the same costs, a candidate continues if no candidate at that rung dominates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.search.interfaces import Array, Indices

_TINY = 1e-12


@dataclass(frozen=True)
class _LearningCurve:
    """The losses reported so far of one training, with the logarithms of its costs."""

    costs: tuple[float, ...]
    losses: tuple[float, ...]
    stopped_at: int | None = None


class EarlyStopping:
    """Decides at each rung which trainings continue.

    Decisions depend only on the reports so far. Losses at a rung are compared only with losses at
    the same rung, never with those of finished trainings.

    Args:
        epochs: Epochs of a full training.
        eta: Reduction factor: one in `eta` candidates of about the same costs continues.
        rungs: Epochs after which a decision is made; by default `grace * eta ** i` below `epochs`.
        grace: Epochs of every training before the first rung; by default a third of `epochs`, after
            which the order of losses is close to the final order (rank correlation 0.9 on the table
            of `docs/search.md`, 0.7 after one epoch).
        region: Candidates have about the same costs if no cost differs by more than this factor.
        extrapolate: Also stop a candidate, after any epoch from the third on, whose most optimistic
            extrapolated loss is dominated; `rungs` may then be empty.

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
            raise ValueError(f"eta {eta} must be at least 2: one in eta continues")
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
        """Never stop this candidate, which is a reference model."""
        self._protected.add(digest)

    def report(
        self, digest: str, epoch: int, costs: Sequence[float], losses: Sequence[float]
    ) -> bool:
        """Return whether a training continues after `epoch`.

        Args:
            digest: Digest of the candidate. A report after the candidate was stopped means that its
                training was resumed.
            epoch: Number of epochs done, from 1.
            costs: The exact objectives, positive.
            losses: One loss per epoch so far; lower is better.
        """
        curve = _LearningCurve(tuple(_log(costs)), tuple(map(float, losses[:epoch])))
        self._curves[digest] = curve
        if digest in self._protected or epoch >= self.epochs:
            return True
        continues = self._continues(digest, epoch, frozenset())
        if not continues:
            self._curves[digest] = replace(curve, stopped_at=epoch)
        return continues

    def finished(self, digest: str, values: Sequence[float] | None) -> None:
        """Report the objective values after a full training, minimised; None if it failed.

        The objectives have the same order in every call.
        """
        self._final[digest] = None if values is None else tuple(map(float, values))

    def restore(
        self, digest: str, costs: Sequence[float], losses: Sequence[float], stopped: bool
    ) -> None:
        """Restore a training of an earlier session with the decision made then."""
        stopped_at = len(losses) if stopped else None
        self._curves[digest] = _LearningCurve(
            tuple(_log(costs)), tuple(map(float, losses)), stopped_at
        )

    def resumable(self) -> list[str]:
        """Return the stopped candidates that would continue now, in the order of their reports.

        A candidate that ranked better at their rung no longer counts if it failed later, or if its
        full training showed that it is dominated.
        """
        excluded = self._failed_or_dominated()
        return [
            digest
            for digest, curve in self._curves.items()
            if curve.stopped_at is not None and self._continues(digest, curve.stopped_at, excluded)
        ]

    def _failed_or_dominated(self) -> frozenset[str]:
        """Return the ended candidates that failed or are dominated by another ended candidate."""
        done = {digest: values for digest, values in self._final.items() if values is not None}
        failed = frozenset(self._final) - frozenset(done)
        if not done:
            return failed
        import moocore

        kept = moocore.is_nondominated(np.array(list(done.values())), keep_weakly=True)
        return failed | {digest for digest, stays in zip(done, kept, strict=True) if not stays}

    def _continues(self, digest: str, epoch: int, excluded: frozenset[str]) -> bool:
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
        # The lowest loss so far, because the weights of that epoch are the result of a training.
        points = np.array([[*curve.costs, min(curve.losses[:rung])] for curve in curves])
        place, rank = names.index(digest), pareto_rank(points)
        # The costs are logarithms: a factor of `region` is a difference of its logarithm.
        apart = np.abs(points[:, :-1] - points[place, :-1]).max(axis=1)
        near = np.flatnonzero(apart <= np.log(self.region))
        if len(near) < self.eta:
            return bool(rank[place] == rank.min())
        ahead = np.count_nonzero(rank[near] < rank[place])
        ahead += _larger_contributions(points, near[rank[near] == rank[place]], near, place)
        return bool(ahead < -(-len(near) // self.eta))

    def _stays_dominated(self, digest: str) -> bool:
        """Whether a candidate that costs no more has a loss below the extrapolated one.

        The loss is extrapolated linearly in the logarithm of the epoch, so that it falls by the
        same amount whenever the number of epochs doubles. The steeper of the last two steps is
        used. Learning curves often follow a power law of the epoch (Domhan et al. 2015); the
        linear function of the logarithm is its limit for an exponent of 0, which slows down least.
        The extrapolation is therefore optimistic.
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

    Axes are scaled to [0, 1] over the points `near`. The reference point is 1.1 on every axis, so
    that the extreme points of the front contribute too.

    Args:
        points: (points, objectives).
        front: Indices of the points of the front, `place` among them.
        near: Indices of the points that define the scale.
        place: Index of the point in question.
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
