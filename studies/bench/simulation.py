"""A search replayed from a table: simulated workers, a simulated clock, real samplers.

A discrete-event loop: each worker trains one candidate, an epoch takes its recorded time, and the
clock jumps from one end of an epoch to the next. Asking a sampler takes no simulated time (what it
really takes is kept apart), and neither does measuring costs.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol, runtime_checkable

from studies.bench.tables import Archive, Network, Table, TableEntry

_NOTHING_LEFT = 1e-9
"""Regret at which the exact front is complete: a search ends there, rounding errors apart."""


class Proposed(Protocol):
    """What a sampler proposes.

    A sampler that may propose a network twice, and stop one of the two trainings, has to
    distinguish them: it gives its proposals an attribute `key`, by which results are reported
    instead of by the digest.
    """

    @property
    def architecture(self) -> Network:
        """What the space builds from the proposed assignment."""


class Asker(Protocol):
    """Anything that proposes members of a space and learns from what they turned out to be."""

    def propose(self) -> Proposed | None:
        """Return what to evaluate next, or None when there is nothing left."""

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Report the objectives of what was proposed."""


@runtime_checkable
class Observer(Protocol):
    """An asker that also learns from trainings under way."""

    def observe(self, digest: str, epoch: int, loss: float) -> None:
        """Take in the learnt objective after an epoch."""


class Stopping(Protocol):
    """A rule that may stop a candidate after an epoch, and take it up again.

    A stopped candidate is not reported to the sampler: it may be resumed, and its loss so far is
    not that of a full training.
    """

    def report(
        self, digest: str, epoch: int, costs: Sequence[float], losses: Sequence[float]
    ) -> bool:
        """Say whether a candidate goes on after this epoch, given the losses of all its epochs."""

    def finished(self, digest: str, values: Sequence[float] | None) -> None:
        """Say how a full training ended."""

    def resumable(self) -> list[str]:
        """Return stopped candidates that deserve to go on now."""


@dataclass(frozen=True)
class EpochEnd:
    """The end of an epoch.

    Attributes:
        time_s: On the simulated clock.
        epochs: Trained so far, by all workers, running ones' finished epochs included.
        evaluations: Candidates that ended so far: trained in full, or stopped.
        regret: Share of the exact front's hypervolume that what is trained in full lacks.
    """

    time_s: float
    epochs: int
    evaluations: int
    regret: float


@dataclass(frozen=True)
class SimulatedSearch:
    """What one search did.

    Attributes:
        events: The ends of all epochs, in the order of the simulated clock.
        duplicates: Proposals of networks that had been proposed before.
        distinct: Different architectures that were trained for an epoch or more.
        ask_ms: Median processor time of one proposal and its report.
    """

    events: tuple[EpochEnd, ...]
    duplicates: int
    distinct: int
    ask_ms: float


def simulate(
    table: Table,
    asker: Asker,
    trials: int,
    workers: int = 1,
    stopping: Stopping | None = None,
) -> SimulatedSearch:
    """Search a table.

    Args:
        table: Answers every evaluation.
        asker: Proposes; several proposals are open at once where there are several workers.
        trials: Budget in full trainings: the search ends with `trials` x `table.epochs` epochs,
            however many candidates they were spent on, or once it has found the exact front.
        workers: Candidates trained at the same time.
        stopping: May stop candidates early; None trains all in full.
    """
    return _Simulation(table, asker, trials, workers, stopping).run()


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
    _now_s: float = 0.0
    _begun: int = 0
    _ended: int = 0
    _duplicates: int = 0
    _queue: list[tuple[float, int, _Job]] = field(default_factory=list)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _asked_s: list[float] = field(default_factory=list)
    _events: list[EpochEnd] = field(default_factory=list)

    def run(self) -> SimulatedSearch:
        budget, archive = self.trials * self.table.epochs, Archive(self.table.volume)
        self._start_idle(budget)
        while self._queue and archive.regret > _NOTHING_LEFT:
            self._now_s, _, job = heapq.heappop(self._queue)
            job.epoch += 1
            done = len(self._events) + 1
            goes_on = self._after_epoch(job)
            if job.epoch == len(job.entry.losses):
                archive.add(job.entry.values)
            self._events.append(EpochEnd(self._now_s, done, self._ended, archive.regret))
            if goes_on and self._begun < budget:
                self._start_epoch(job)
            self._start_idle(budget)
        asked_ms = 1000 * median(self._asked_s) if self._asked_s else 0.0
        return SimulatedSearch(tuple(self._events), self._duplicates, len(self._seen), asked_ms)

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
        """Return whether the candidate goes on; tell the sampler once it is trained in full."""
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
    """Return a search as plain JSON types; of the events only those that change the regret."""
    changes = [
        event
        for before, event in zip((None, *search.events), search.events, strict=False)
        if before is None or event.regret != before.regret
    ]
    last = search.events[-1:]
    kept = [*changes, *(event for event in last if event is not changes[-1])]
    return {
        "duplicates": search.duplicates,
        "distinct": search.distinct,
        "ask_ms": search.ask_ms,
        "time_s": [event.time_s for event in kept],
        "epochs": [event.epochs for event in kept],
        "evaluations": [event.evaluations for event in kept],
        "regret": [event.regret for event in kept],
    }
