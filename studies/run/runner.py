"""Run a study: references first, then one unseen candidate after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Generic, TypeVar

from nas.artefacts import CHECKPOINT
from nas.findings import Findings
from nas.objectives import TRAINED_OBJECTIVE
from nas.predict.known_costs import KnownCosts
from nas.search.interfaces import KnownLimits
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import State, StudyRecord, TrialRecord
from studies.run.backlog import Backlog
from studies.run.crew import Crew, Hands, Interrupted, TrialEvent
from studies.run.deaths import Deaths
from studies.run.elsewhere import Elsewhere
from studies.run.evaluation import Evaluation, known_of
from studies.run.limits import Limits
from studies.run.search import Search
from studies.run.stopping import Stopper
from studies.run.watcher import Watcher
from studies.store.store import StudyStore

H_co = TypeVar("H_co", bound=Hands, covariant=True)


class Runner(Generic[H_co]):
    """Drives one study; alone it asks and tells.

    `run` does all of it with a crew that can be waited for. Where something else has the loop, that
    calls `feed` whenever there may be room, `handle` for each event, and `close` at the end.

    Args:
        config: The question.
        space: Where candidates come from; its image size is that of the data.
        store: Where everything is recorded; opened for writing by the caller.
        crew: Evaluates architectures.
        watcher: Is told what happens.
        costs: What is known of many architectures at once, for the sampler that screens them.
        earlier: Complete trials of another study, for the sampler to learn from.
        limits: Hard limits that are known beforehand, for the same sampler.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: SearchSpace,
        store: StudyStore,
        crew: H_co,
        watcher: Watcher | None = None,
        costs: KnownCosts | None = None,
        earlier: Sequence[TrialRecord] = (),
        limits: KnownLimits | None = None,
    ) -> None:
        self.config, self.space, self.store, self.crew = config, space, store, crew
        self.watcher = watcher or Watcher()
        self.gave_up: str | None = None
        self._record = store.record()
        self._limits = Limits(config.limits)
        self._stopper = Stopper(config.stopping_rule(), config.objectives, config.training.epochs)
        self._backlog = Backlog(store.trials.unfinished(), self._record.trials)
        self._elsewhere = Elsewhere(self._record.trials, shared=bool(store.others.me))
        self._running: dict[int, Evaluation] = {}
        self._deaths = Deaths()
        self._search = Search(config, space, self._limits, costs, limits)
        self._search.warm(earlier)
        self._restore()

    def run(self: Runner[Crew]) -> StudyRecord:
        """Finish what was left unfinished, then run until the study has its trials.

        Raises:
            Interrupted: the user wants it to stop; what runs is left to be resumed.
            UserError: nothing could be evaluated at present; likewise.
        """
        with self.blameless():
            while True:
                while self.feed():
                    self.handle(self.crew.next())
                if not self.store.others.wait():
                    return self.close()

    @contextmanager
    def blameless(self) -> Iterator[None]:
        """Do not count this start against running candidates if user or machine stop the run."""
        try:
            yield
        except (Interrupted, UserError):
            for number in self._running:
                with suppress(OSError):  # a full disk may be why
                    self.store.trials.forget_starts(number)
            raise

    def feed(self) -> bool:
        """Start what there is room for; return whether anything is being evaluated."""
        while len(self._running) < self.crew.size and (trial := self._next()) is not None:
            self._start(trial)
        return bool(self._running)

    def close(self) -> StudyRecord:
        """End what was stopped early, when nothing brings it back any more; return the study."""
        for trial in list(self._backlog.paused.values()):
            self._finish(trial.number, "stopped", trial.reason)
        return self._record

    def _next(self) -> TrialRecord | None:
        """Return what to evaluate next: what was left, references, then proposals.

        None while what runs may fill the study, or when there is no more to propose. What other
        drivers did meanwhile is heard before anything is decided.
        """
        if trial := self.store.others.in_turn(self._due):
            return trial
        while self._has_room():
            self.gave_up = self._limits.hopeless()
            if self.gave_up or self._search.propose() is None:
                return None
            if (number := self.store.others.in_turn(self._begin_held)) is not None:
                return self.store.trial(number)
        return None

    def _due(self) -> TrialRecord | None:
        """Return what comes before any proposal."""
        self._listen()
        if self._backlog.left:
            return self._backlog.left.pop(0)
        if name := self._backlog.missing_reference():
            return self._begin_reference(name)
        if digest := self._stopper.resumable(self._backlog.paused):
            return self._backlog.paused.pop(digest)
        return None

    def _has_room(self) -> bool:
        """Whether the study may still want a candidate, all that runs anywhere counted in."""
        here = [*(one.trial for one in self._running.values()), *self._backlog.left]
        pending = sum(not trial.reference for trial in here) + len(self._elsewhere.running)
        return not self.gave_up and self._record.searched + pending < self.config.search.trials

    def _begin_held(self) -> int | None:
        """Begin the proposal at hand; it stays at hand if the study has filled up meanwhile."""
        self._listen()
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

    def _listen(self) -> None:
        """Learn what other drivers began and ended; adopt what those left that are gone."""
        news, orphans = self.store.others.hear(self._elsewhere.states)
        for trial in news:
            self._learn(trial)
        for trial in orphans:
            self._elsewhere.running.discard(trial.number)
            self._backlog.add(trial)

    def _learn(self, trial: TrialRecord) -> None:
        self._elsewhere.hear(trial)
        self._search.register(self.space.assignment(trial.architecture), trial.architecture)
        self._backlog.add_reference(trial.reference)
        self._backlog.paused.pop(trial.digest, None)
        if trial.number in self._running:
            self._running[trial.number].lost = True
        if trial.state == "running":
            return
        if trial.state != "stopped":  # which its driver may yet go on with
            self._search.tell(trial)
        self._stopper.restore(trial)
        self._put(trial)

    def _restore(self) -> None:
        """Tell the search and the rule of early stopping what the record holds."""
        paused = self._backlog.paused
        for trial in self._record.trials:
            # Finding the assignment anew takes longer than all the rest.
            known_as = trial.assignment or self.space.assignment(trial.architecture)
            self._search.register(known_as, trial.architecture)
            open_elsewhere = self.store.others.me and trial.state == "stopped"
            if trial.state != "running" and trial.digest not in paused and not open_elsewhere:
                self._search.tell(trial)
            self._stopper.restore(trial)

    def _begin_reference(self, name: str) -> TrialRecord:
        architecture = REFERENCES[name].resized(self.space.image_size)
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
        if told := self._deaths.too_many(number, starts, self.crew.apart):
            self._finish(number, "failed", f"{told}: {died}" if died else told)
        else:
            self.store.fetch(trial.digest)
            self.crew.start(number, trial.architecture, known)

    def handle(self, event: TrialEvent) -> None:
        """Take note of what happened, tell and record it; after a finding, answer."""
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
        """End an evaluation without a word: its trial is another driver's by now."""
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
            self.store.trials.keep(number, findings)  # what was measured need not be measured again
        elif findings.step == "training":
            if self.store.trials.note_progress(number, len(findings.history)):
                self._deaths.forget(number)
            loss = findings.objectives[TRAINED_OBJECTIVE]
            self._search.observe(trial.digest, len(findings.history), loss)
            stop = self._stopper.reason_to_stop(trial, findings)
        over = self._limits.missed(findings)
        if over and not trial.reference:
            evaluation.ending = "rejected", over
        elif stop:
            evaluation.ending = "stopped", stop
        self.crew.answer(number, evaluation.ending is None)

    def _pause(self, number: int, state: State, reason: str | None) -> None:
        """End a training for the time; the study may come back to it until it ends."""
        self.store.trials.keep(number, self._running.pop(number).findings, stopped=True)
        trial = replace(self.store.trial(number), state=state, reason=reason)
        self._backlog.paused[trial.digest] = trial
        self._put(trial)

    def _finish(self, number: int, state: State, reason: str | None) -> None:
        evaluation = self._running.pop(number, None)
        trial = evaluation.trial if evaluation else self._record.trial(number)
        self._backlog.paused.pop(trial.digest, None)
        findings = evaluation.findings if evaluation else trial.findings
        violations = self._limits.violations(findings.objectives, findings.metrics)
        if not self.store.trials.finish(number, state, findings, reason, violations):
            self._let_go(number)
            return
        (self.store.artefacts / trial.digest / CHECKPOINT).unlink(missing_ok=True)
        ended = self.store.trial(number)
        self._search.tell(ended)
        self._stopper.ended(ended)
        self._put(ended)

    def _put(self, trial: TrialRecord) -> None:
        self._limits.count(trial)
        self._record = self._record.with_trial(trial)
        self.watcher.ended(trial.number, self._record)
