"""A search replayed from a table: simulated workers, a simulated clock, real samplers.

A discrete-event simulation: each worker trains one candidate, an epoch takes its recorded time, and
the clock advances from one end of an epoch to the next. Asking a sampler takes no simulated time
(its real time is recorded separately), and neither does measuring costs.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nas.objectives import nondominated
from nas.search.axis_features import AxisFeatures
from nas.search.surrogate import ENOUGH, smoothed
from studies.bench.tables import METRICS, Archive, Network, Quality, Table, TableEntry

_NOTHING_LEFT = 1e-9
"""Regret below which the exact front is complete, up to rounding errors, and a search ends."""


class Proposed(Protocol):
    """A sampler's proposal.

    A sampler that may propose a network twice, and stop one of the two trainings, has to
    distinguish them: it gives its proposals an attribute `key`, by which results are reported
    instead of by the digest.
    """

    @property
    def architecture(self) -> Network:
        """The member of the space that is proposed."""


class Asker(Protocol):
    """A sampler: it proposes members of a space and learns from their objective values."""

    def propose(self) -> Proposed | None:
        """Return the next proposal, or None when the space is used up."""

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Report the objective values of a proposal, or its failure as None."""


@runtime_checkable
class Observer(Protocol):
    """An asker that also learns from trainings that are still running."""

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Observe the learned objective after an epoch."""


class Stopping(Protocol):
    """A rule that may stop a candidate after an epoch, and resume it later.

    A stopped candidate is not reported to the sampler: it may be resumed, and its loss so far is
    not that of a full training.
    """

    def report(
        self, digest: str, epoch: int, costs: Sequence[float], losses: Sequence[float]
    ) -> bool:
        """Return whether a candidate continues after this epoch, given the losses of its epochs."""

    def finished(self, digest: str, values: Sequence[float] | None) -> None:
        """Report the objective values of a full training."""

    def resumable(self) -> list[str]:
        """Return the stopped candidates that should be resumed now."""


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch, or the beginning of the search, which has trained none.

    Attributes:
        time_s: Simulated time in seconds.
        epochs: Epochs trained so far by all workers, including those of running candidates.
        evaluations: Candidates that ended so far: fully trained or stopped.
        quality: How near the fully trained candidates are to the exact front.
    """

    time_s: float
    epochs: int
    evaluations: int
    quality: Quality


@dataclass(frozen=True)
class SimulatedSearch:
    """The result of one simulated search.

    Attributes:
        events: The beginning, then the ends of all epochs, in the order of simulated time.
        duplicates: Number of proposals of networks that had been proposed before.
        distinct: Number of different architectures that were proposed.
        ask_ms: Median processor time of one proposal and its report.
        regret_fitted: Regret at the end of the front as observed together with the front by the
            fitted losses (`with_fitted`): what a study confirms.
    """

    events: tuple[EpochEnd, ...]
    duplicates: int
    distinct: int
    ask_ms: float
    regret_fitted: float


def simulate(
    table: Table,
    asker: Asker,
    trials: int,
    workers: int = 1,
    stopping: Stopping | None = None,
    truth: Table | None = None,
) -> SimulatedSearch:
    """Search a table and return what happened.

    Args:
        table: The results of all evaluations, as the search observes them.
        asker: The sampler; with several workers several of its proposals are open at once.
        trials: Budget in full trainings: the search ends after `trials` x `table.epochs` epochs,
            for any number of candidates, or once it has found the exact front.
        workers: Number of candidates that are trained at the same time.
        stopping: The rule for early stopping; None trains every candidate in full.
        truth: The table by whose losses the front is judged that the search has observed; the same
            table by default. With another one the search does not end before its budget, because
            further luck can still change the front.
    """
    return _Simulation(table, asker, trials, workers, stopping, truth or table).run()


def with_fitted(table: Table, truth: Table, trained: Sequence[str]) -> Quality:
    """Judge the front as observed together with the front by fitted losses.

    The fitted loss of a candidate is the posterior median of a surrogate of the axes, which was
    fitted to all losses observed. It smooths the luck of single trainings.

    Args:
        table: The table as observed.
        truth: The table by which the candidates are judged.
        trained: Digests of the fully trained candidates.
    """
    if not trained:
        return truth.volume.quality(np.empty((0, 0)))
    seen = [table.entries[digest] for digest in trained]
    observed = np.array([one.values for one in seen])
    fitted = observed.copy()
    if len(seen) >= ENOUGH:
        features = AxisFeatures(table.space)([one.assignment for one in seen])
        fitted[:, 0] = smoothed(features, observed[:, 0])
    kept = nondominated(observed) | nondominated(fitted)
    real = np.array([truth.entries[digest].values for digest in trained])
    return truth.volume.quality(real[kept])


@dataclass
class _Job:
    entry: TableEntry
    key: str
    epoch: int = 0


@dataclass
class _Simulation:
    table: Table
    asker: Asker
    trials: int
    workers: int
    stopping: Stopping | None
    truth: Table
    _now_s: float = 0.0
    _begun: int = 0
    _ended: int = 0
    _duplicates: int = 0
    _queue: list[tuple[float, int, _Job]] = field(default_factory=list)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _asked_s: list[float] = field(default_factory=list)
    _events: list[EpochEnd] = field(default_factory=list)
    _trained: list[str] = field(default_factory=list)

    def run(self) -> SimulatedSearch:
        budget, archive = self.trials * self.table.epochs, Archive(self.truth.volume)
        certain = self.truth is self.table
        self._events = [EpochEnd(0.0, 0, 0, archive.quality)]
        self._start_idle(budget)
        while self._queue and not (certain and archive.quality.regret <= _NOTHING_LEFT):
            self._now_s, _, job = heapq.heappop(self._queue)
            job.epoch += 1
            done = len(self._events)
            goes_on = self._after_epoch(job)
            if job.epoch == len(job.entry.losses):
                digest = job.entry.digest
                archive.add(job.entry.values, self.truth.entries[digest].values)
                self._trained.append(digest)
            self._events.append(EpochEnd(self._now_s, done, self._ended, archive.quality))
            if goes_on and self._begun < budget:
                self._start_epoch(job)
            self._start_idle(budget)
        asked_ms = 1000 * median(self._asked_s) if self._asked_s else 0.0
        fitted = with_fitted(self.table, self.truth, list(dict.fromkeys(self._trained)))
        return SimulatedSearch(
            tuple(self._events), self._duplicates, len(self._seen), asked_ms, fitted.regret
        )

    def _start_idle(self, budget: int) -> None:
        while len(self._queue) < self.workers and self._begun < budget:
            job = self._resumed() or self._proposed()
            if job is None:
                return
            self._start_epoch(job)

    def _start_epoch(self, job: _Job) -> None:
        ends_s = self._now_s + job.entry.epoch_s[job.epoch]
        heapq.heappush(self._queue, (ends_s, self._begun, job))
        self._begun += 1

    def _resumed(self) -> _Job | None:
        running = {job.key for _, _, job in self._queue}
        for key in self.stopping.resumable() if self.stopping else ():
            job = self._jobs[key]
            if key not in running and job.epoch < len(job.entry.losses):
                self._ended -= 1
                return job
        return None

    def _proposed(self) -> _Job | None:
        start_s = time.thread_time()
        proposal = self.asker.propose()
        self._asked_s.append(time.thread_time() - start_s)
        if proposal is None:
            return None
        digest = proposal.architecture.digest
        self._duplicates += digest in self._seen
        self._seen.add(digest)
        key = getattr(proposal, "key", digest)
        self._jobs[key] = _Job(self.table.entries[digest], key)
        return self._jobs[key]

    def _after_epoch(self, job: _Job) -> bool:
        """Report the epoch, and after the last all objectives; return whether it continues."""
        entry, losses = job.entry, job.entry.losses[: job.epoch]
        start_s = time.thread_time()
        if isinstance(self.asker, Observer):
            self.asker.observe(job.key, job.epoch, losses[-1])
        finished = job.epoch == len(entry.losses)
        if finished:
            self.asker.tell(job.key, entry.values, None)
        self._asked_s[-1] += time.thread_time() - start_s
        kept = self.stopping is None or self.stopping.report(
            job.key, job.epoch, entry.costs, losses
        )
        if finished and self.stopping is not None:
            self.stopping.finished(job.key, entry.values)
        self._ended += finished or not kept
        return kept and not finished


def as_records(search: SimulatedSearch) -> dict[str, Any]:
    """Return a search as plain JSON types, with the events that change the quality and the last."""
    changes = [
        event
        for before, event in zip((None, *search.events), search.events, strict=False)
        if before is None or event.quality != before.quality
    ]
    last = search.events[-1]
    kept = changes if changes[-1] is last else [*changes, last]
    return {
        "duplicates": search.duplicates,
        "distinct": search.distinct,
        "ask_ms": search.ask_ms,
        "regret_fitted": search.regret_fitted,
        "time_s": [event.time_s for event in kept],
        "epochs": [event.epochs for event in kept],
        "evaluations": [event.evaluations for event in kept],
        **{name: [getattr(event.quality, name) for event in kept] for name in METRICS},
    }
