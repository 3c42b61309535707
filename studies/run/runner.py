"""Run a study: first the references, then candidates that no trial has evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Generic, TypeVar

from nas.findings import Findings
from nas.objectives import trained_objectives
from nas.predict.known_costs import KnownCosts
from nas.search.interfaces import KnownLimits
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import State, StudyRecord, TrialRecord
from studies.record.verdict import judged, missed, violations
from studies.run.backlog import Backlog
from studies.run.crew import Crew, Executor, Interrupted, TrialEvent
from studies.run.deaths import Deaths
from studies.run.elsewhere import Elsewhere
from studies.run.evaluation import Evaluation, known_of
from studies.run.limits import Rejections
from studies.run.search import Search
from studies.run.stopping import Stopper
from studies.run.watcher import Watcher
from studies.store.store import StudyStore

E_co = TypeVar("E_co", bound=Executor, covariant=True)


class Runner(Generic[E_co]):
    """Runs one study: the only object that asks the sampler and writes to the storage.

    `run` contains the whole loop and needs a crew whose events can be read. Where another library
    has the loop, that calls `feed` whenever an evaluation may start, `handle` for each event, and
    `close` at the end.

    Args:
        config: The study's configuration.
        space: The search space; its image size is that of the data.
        store: The study's storage, opened for writing by the caller.
        crew: Evaluates architectures.
        watcher: Receives the events of the study, for display.
        costs: Computes exact or predicted costs of many architectures at once, for the sampler.
        earlier: Complete trials of another study, from which the sampler learns.
        limits: Computes by how much architectures exceed hard limits, for the sampler.

    Attributes:
        gave_up: The reason for giving up the search, or None.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: SearchSpace,
        store: StudyStore,
        crew: E_co,
        watcher: Watcher | None = None,
        costs: KnownCosts | None = None,
        earlier: Sequence[TrialRecord] = (),
        limits: KnownLimits | None = None,
    ) -> None:
        self.config, self.space, self.store, self.crew = config, space, store, crew
        self.watcher = watcher or Watcher()
        self.gave_up: str | None = None
        self._record = store.record()
        self._rejections = Rejections(config.limits)
        self._stopper = Stopper(config.stopping_rule(), config.objectives, config.training.epochs)
        self._backlog = Backlog(store.trials.unfinished(), self._record.trials)
        self._elsewhere = Elsewhere(self._record.trials, shared=bool(store.others.me))
        self._running: dict[int, Evaluation] = {}
        self._deaths = Deaths()
        self._search = Search(config, space, costs, limits, self._record.noise)
        self._search.warm(earlier)
        self.store.remove_leftovers()
        self._restore()

    def run(self: Runner[Crew]) -> StudyRecord:
        """Finish unfinished trials, then run until the study has its number of trials.

        Raises:
            Interrupted: the user stops the study; the running trials can be resumed.
            UserError: no candidate can be evaluated at present; likewise.
        """
        with self.blameless():
            while True:
                while self.feed():
                    self.handle(self.crew.next())
                if not self.store.others.wait():
                    return self.close()

    @contextmanager
    def blameless(self) -> Iterator[None]:
        """Forgive the running candidates a start that ends with the run.

        Do not count a failed start against running candidates when the user or the machine stops
        the run.
        """
        try:
            yield
        except (Interrupted, UserError):
            for number in self._running:
                with suppress(OSError):  # a full disk may be the cause
                    self.store.trials.forget_starts(number)
            raise

    def feed(self) -> bool:
        """Start as many evaluations as the crew can take; return whether any is running."""
        while len(self._running) < self.crew.size and (trial := self._next()) is not None:
            self._start(trial)
        return bool(self._running)

    def close(self) -> StudyRecord:
        """Record the trials that stay stopped early as such; return the study."""
        for trial in list(self._backlog.paused.values()):
            self._finish(trial.number, "stopped", trial.reason)
        return self._record

    def _next(self) -> TrialRecord | None:
        """Return the next trial to evaluate: unfinished ones, references, then proposals.

        None while the running trials may complete the study, or when the sampler has no more
        proposals. Before each decision the news of other drivers is read.
        """
        if trial := self.store.others.exclusively(self._due):
            return trial
        while self._has_room():
            self.gave_up = self._rejections.hopeless()
            if self.gave_up or self._search.propose() is None:
                return None
            if (number := self.store.others.exclusively(self._begin_held)) is not None:
                return self.store.trial(number)
        return None

    def _due(self) -> TrialRecord | None:
        """Return the next trial that precedes proposals; None if there is none."""
        self._poll_others()
        if self._backlog.left:
            return self._backlog.left.pop(0)
        if name := self._backlog.missing_reference():
            return self._begin_reference(name)
        if digest := self._stopper.resumable(self._backlog.paused):
            return self._backlog.paused.pop(digest)
        return None

    def _has_room(self) -> bool:
        """Return whether the study needs another candidate, if all running trials succeed."""
        here = [*(one.trial for one in self._running.values()), *self._backlog.left]
        pending = sum(not trial.reference for trial in here) + len(self._elsewhere.running)
        return not self.gave_up and self._record.searched + pending < self.config.search.trials

    def _begin_held(self) -> int | None:
        """Begin the kept proposal; keep it if other drivers have completed the study meanwhile."""
        self._poll_others()
        proposal = self._search.proposal
        assert proposal is not None
        if proposal.architecture.digest in self._elsewhere.taken:
            self._search.proposal = None
        elif self._has_room():
            number = self.store.trials.begin(
                proposal.architecture, proposal.assignment, self.space, repeats=proposal.repeats
            )
            self._search.proposal = None
            return number
        return None

    def _poll_others(self) -> None:
        """Read what other drivers began and ended; take over trials of drivers that are gone."""
        news, orphans = self.store.others.poll(self._elsewhere.states)
        for trial in news:
            self._take_note(judged(trial, self.config.limits))
        for trial in orphans:
            self._elsewhere.running.discard(trial.number)
            self._backlog.add(trial)

    def _take_note(self, trial: TrialRecord) -> None:
        self._elsewhere.update(trial)
        if trial.state != "open":
            self._search.register(self.space.assignment(trial.architecture), trial.architecture)
        self._backlog.add_reference(trial.reference)
        self._backlog.paused.pop(trial.digest, None)
        if trial.number in self._running:
            self._running[trial.number].lost = True
        if trial.state == "running":
            return
        if trial.state != "stopped":  # its driver may resume it
            self._search.tell(trial)
        self._stopper.restore(trial)
        self._put(trial)

    def _restore(self) -> None:
        """Report the recorded trials to the sampler and to early stopping."""
        paused = self._backlog.paused
        for trial in self._record.trials:
            if trial.state == "open":  # it may be proposed again
                continue
            # Deriving the assignment from the architecture takes longer than all other steps.
            known_as = trial.assignment or self.space.assignment(trial.architecture)
            self._search.register(known_as, trial.architecture)
            open_elsewhere = self.store.others.me and trial.state == "stopped"
            if trial.state != "running" and trial.digest not in paused and not open_elsewhere:
                self._search.tell(trial)
            self._stopper.restore(trial)

    def _begin_reference(self, name: str) -> TrialRecord:
        architecture = self.space.fitted(REFERENCES[name])
        assignment = self.space.assignment(architecture)
        self._search.register(assignment, architecture)
        number = self.store.trials.begin(architecture, assignment, self.space, reference=name)
        self._backlog.add_reference(name)
        return self.store.trial(number)

    def _start(self, trial: TrialRecord, died: str | None = None) -> None:
        number, known = trial.number, known_of(trial)
        self._running[number] = Evaluation(trial, known or Findings("static"))
        if trial.state == "stopped":
            self.store.trials.keep(number, self._running[number].findings)
            self._record = self._record.with_trial(replace(trial, state="running"))
        self.watcher.started(trial, self._record)
        starts = self.store.trials.count_start(number) - 1
        if refusal := self._deaths.too_many(number, starts, self.crew.apart):
            self._finish(number, "failed", f"{refusal}: {died}" if died else refusal)
        else:
            self.store.fetch(trial.digest)
            self.crew.start(number, trial.architecture, known)

    def handle(self, event: TrialEvent) -> None:
        """Record an event, report it to sampler and watcher, and answer after findings."""
        number, reason = event.number, event.reason
        if event.kind == "batch":
            self.watcher.batch(*event.batches, number)
        elif event.kind == "warned":
            self.watcher.warned(number, reason or "")
        elif (evaluation := self._running[number]).lost:
            self._forget(number, event)
        elif event.kind == "found":
            assert event.findings is not None
            self._found(number, event.findings)
        elif event.kind == "died" and evaluation.ending is None:
            self._deaths.add(number)
            self._start(self.store.trial(number), reason)
        elif event.kind == "failed":
            self._finish(number, "failed", reason)
        else:
            state, reason = evaluation.verdict(self.config.objectives)
            (self._pause if state == "stopped" else self._finish)(number, state, reason)

    def _forget(self, number: int, event: TrialEvent) -> None:
        """End an evaluation without a record: another driver has taken over its trial."""
        if event.kind == "found":
            self.crew.answer(number, False)
            return
        del self._running[number]
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        self._elsewhere.forget(number)
        self.watcher.ended(number, self._record)

    def _found(self, number: int, findings: Findings) -> None:
        evaluation = self._running[number]
        if not self.store.trials.owns(number):
            evaluation.lost = True
            self.crew.answer(number, False)
            return
        self.watcher.found(number, findings)
        evaluation.findings, trial, stop = findings, evaluation.trial, None
        if findings.step == "device":
            self.store.trials.keep(number, findings)  # a resumed trial need not measure again
        elif findings.step == "training":
            if self.store.trials.note_progress(number, len(findings.history)):
                self._deaths.forget(number)
            for name in trained_objectives(self.config.objectives)[:1]:
                value = findings.objectives[name]
                self._search.observe(trial.digest, len(findings.history), value)
            stop = self._stopper.reason_to_stop(trial, findings)
        over = missed(self.config.limits, findings)
        if over and not trial.reference:
            evaluation.ending = "rejected", over
        elif stop:
            evaluation.ending = "stopped", stop
        self.crew.answer(number, evaluation.ending is None)

    def _pause(self, number: int, state: State, reason: str | None) -> None:
        """Pause a training that early stopping ended; the study may resume it later."""
        self.store.trials.keep(number, self._running.pop(number).findings, stopped=True)
        trial = replace(self.store.trial(number), state=state, reason=reason)
        self._backlog.paused[trial.digest] = trial
        self._put(trial)

    def _finish(self, number: int, state: State, reason: str | None) -> None:
        evaluation = self._running.pop(number, None)
        trial = evaluation.trial if evaluation else self._record.trial(number)
        self._backlog.paused.pop(trial.digest, None)
        findings = evaluation.findings if evaluation else trial.findings
        excess = violations(self.config.limits, findings)
        if not self.store.trials.finish(number, state, findings, reason, excess):
            self._let_go(number)
            return
        self.store.remove_checkpoint(trial.digest)
        ended = judged(self.store.trial(number), self.config.limits)
        self._search.tell(ended)
        self._stopper.ended(ended)
        self._put(ended)

    def _put(self, trial: TrialRecord) -> None:
        self._rejections.count(trial)
        self._record = self._record.with_trial(trial)
        self.watcher.ended(trial.number, self._record)
