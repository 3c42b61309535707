"""Run a study: references first, then one unseen candidate after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np

from nas.artefacts import CHECKPOINT
from nas.evaluate import Findings
from nas.objectives import TRAINED_OBJECTIVE
from nas.predict.known_costs import KnownCosts
from nas.search import Proposal, Proposer, make_proposer
from nas.search.members import KnownLimits
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config.study import StudyConfig
from studies.record.records import State, StudyRecord, TrialRecord
from studies.run.crew import Crew, Hands, Interrupted, TrialEvent
from studies.run.limits import Limits
from studies.run.stopping import Stopper
from studies.store.store import StudyStore

MAX_STARTS = 3
"""Deaths of the process that evaluated a trial, without an epoch of progress, that fail it."""

MAX_STARTS_APART = 10
"""The same for deaths of the driver, where it does not evaluate: hardly the candidate's fault."""


class Watcher:
    """What a display may want to know. Does nothing by itself."""

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """A candidate is about to be evaluated."""

    def found(self, number: int, findings: Findings) -> None:
        """More is known of a candidate."""

    def batch(self, done: int, total: int, number: int | None = None) -> None:
        """A training got on; without a number it is the only one that runs."""

    def warned(self, number: int, text: str) -> None:
        """Something befell a candidate's evaluation, which goes on."""

    def ended(self, number: int, study: StudyRecord) -> None:
        """A candidate was told."""


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
        self.config, self.space, self.store = config, space, store
        self.crew = crew
        self.watcher = watcher or Watcher()
        self.gave_up: str | None = None
        self._record, self._earlier = store.record(), earlier
        self._costs, self._known_limits = costs, limits
        self._limits = Limits(config.limits)
        self._stopper = Stopper(config.stopping_rule(), config.objectives, config.training.epochs)
        unfinished = store.unfinished()
        self._left = [trial for trial in unfinished if trial.state == "running"]
        self._paused = {trial.digest: trial for trial in unfinished if trial.state == "stopped"}
        self._known: dict[int, State] = {t.number: t.state for t in self._record.trials}
        running = [
            t.number for t in self._record.trials if t.state == "running" and not t.reference
        ]
        self._elsewhere = set(running if store.others.me else ())  # else they were left behind
        self._taken: set[str] = set()
        self._held: Proposal | None = None
        self._lost: set[int] = set()
        self._proposer = self._restore()
        self._references = {trial.reference for trial in self._record.trials}
        self._running: dict[int, TrialRecord] = {}
        self._findings: dict[int, Findings] = {}
        self._stopped: dict[int, tuple[State, str]] = {}
        self._deaths: Counter[int] = Counter()

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
        """Blame no candidate that runs for an end by the user, or because of the machine."""
        try:
            yield
        except (Interrupted, UserError):
            for number in self._running:
                with suppress(OSError):  # a full disk may be why
                    self.store.forget_starts(number)
            raise

    def feed(self) -> bool:
        """Start what there is room for; return whether anything is being evaluated."""
        while len(self._running) < self.crew.size and (trial := self._next()) is not None:
            self._start(trial)
        return bool(self._running)

    def close(self) -> StudyRecord:
        """End what was stopped early, when nothing brings it back any more; return the study."""
        for trial in list(self._paused.values()):
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
            if not self.gave_up and self._held is None:
                self._held = self._proposer.propose()
            if self.gave_up or self._held is None:
                return None
            if (number := self.store.others.in_turn(self._begin_held)) is not None:
                return self.store.trial(number)
        return None

    def _due(self) -> TrialRecord | None:
        """Return what comes before any proposal."""
        self._listen()
        if self._left:
            return self._left.pop(0)
        for name, architecture in REFERENCES.items():
            if name not in self._references:
                return self._begin_reference(name, architecture.resized(self.space.image_size))
        if digest := self._stopper.resumable(self._paused):
            return self._paused.pop(digest)
        return None

    def _has_room(self) -> bool:
        """Whether the study may still want a candidate, all that runs anywhere counted in."""
        here = [*self._running.values(), *self._left]
        pending = sum(not trial.reference for trial in here) + len(self._elsewhere)
        return not self.gave_up and self.searched + pending < self.config.search.trials

    def _begin_held(self) -> int | None:
        """Begin the proposal at hand; it stays at hand if the study has filled up meanwhile."""
        self._listen()
        proposal = self._held
        assert proposal is not None
        if proposal.architecture.digest in self._taken:
            self._held = None
        elif self._has_room():
            number = self.store.begin(
                proposal.architecture, proposal.assignment, self.space, repeats=proposal.repeats
            )
            self._held = None
            return number
        return None

    def _listen(self) -> None:
        """Learn what other drivers began and ended; adopt what those left that are gone."""
        news, orphans = self.store.others.hear(self._known)
        for trial in news:
            self._learn(trial)
        for trial in orphans:
            self._elsewhere.discard(trial.number)
            if trial.state == "stopped":
                self._paused[trial.digest] = trial
            else:
                self._left.append(trial)

    def _learn(self, trial: TrialRecord) -> None:
        self._known[trial.number] = trial.state
        self._taken.add(trial.digest)
        self._proposer.register(self.space.assignment(trial.architecture), trial.architecture)
        self._references.add(trial.reference)
        self._elsewhere.discard(trial.number)
        self._paused.pop(trial.digest, None)
        if trial.number in self._running:
            self._lost.add(trial.number)
        if trial.state == "running":
            if not trial.reference:
                self._elsewhere.add(trial.number)
            return
        if trial.state != "stopped":  # which its driver may yet go on with
            self._tell(self._proposer, trial)
        self._stopper.restore(trial)
        self._put(trial)

    @property
    def searched(self) -> int:
        """Number of candidates evaluated so far, references and rejections apart."""
        return self._record.searched

    def _restore(self) -> Proposer:
        search = self.config.search
        names = self.config.objectives
        proposer = make_proposer(
            self.space, search.sampler, names, search.seed, self._costs, self._known_limits
        )
        members = [(self.space.assignment(t.architecture), t) for t in self._earlier]
        known = [(assignment, t) for assignment, t in members if assignment is not None]
        if known:
            proposer.warm(
                [assignment for assignment, _ in known],
                [trial.architecture for _, trial in known],
                [[t.objectives[name] for name in self.config.objectives] for _, t in known],
            )
        for trial in self._record.trials:
            # Finding the assignment anew takes longer than all the rest.
            known_as = dict(trial.assignment) or self.space.assignment(trial.architecture)
            proposer.register(known_as, trial.architecture)
            paused = trial.digest in self._paused or (
                self.store.others.me and trial.state == "stopped"
            )
            if trial.state != "running" and not paused:
                self._tell(proposer, trial)
            self._stopper.restore(trial)
        return proposer

    def _begin_reference(self, name: str, architecture: Architecture) -> TrialRecord:
        assignment = self.space.assignment(architecture)
        self._proposer.register(assignment, architecture)
        number = self.store.begin(architecture, assignment, self.space, reference=name)
        self._references.add(name)
        return self.store.trial(number)

    def _start(self, trial: TrialRecord, died: str | None = None) -> None:
        number = trial.number
        known = _known(trial)
        self._running[number], self._findings[number] = trial, known or Findings("static")
        if trial.state == "stopped":
            self.store.keep(number, self._findings[number])
            self._record = self._record.with_trial(replace(trial, state="running"))
        self.watcher.started(trial, self._record)
        most = MAX_STARTS_APART if self.crew.apart else MAX_STARTS
        starts = self.store.count_start(number) - 1
        if self._deaths[number] >= MAX_STARTS or starts >= most:
            times = max(starts, self._deaths[number])
            told = f"the process ended {times} times while evaluating it"
            self._finish(number, "failed", f"{told}: {died}" if died else told)
        else:
            self.store.fetch(trial.digest)
            self.crew.start(number, trial.architecture, known)

    def handle(self, event: TrialEvent) -> None:
        """Take note of what happened, tell and record it; after a finding, answer."""
        number, reason = event.number, event.reason
        if event.kind == "batch":
            self.watcher.batch(*event.batches, number)
        elif number in self._lost:
            self._forget(number, event)
        elif event.kind == "found":
            assert event.findings is not None
            self._found(number, event.findings)
        elif event.kind == "died" and number not in self._stopped:
            del self._running[number]
            self._deaths[number] += 1
            self._start(self.store.trial(number), reason)
        elif event.kind == "warned":
            self.watcher.warned(number, reason or "")
        elif event.kind == "failed":
            self._finish(number, "failed", reason)
        elif number in self._stopped:
            state, reason = self._stopped.pop(number)
            (self._pause if state == "stopped" else self._finish)(number, state, reason)
        else:
            self._finish(number, *self._verdict(self._findings[number]))

    def _forget(self, number: int, event: TrialEvent) -> None:
        """End an evaluation without a word: its trial is another driver's by now."""
        if event.kind == "found":
            self.crew.answer(number, False)
            return
        self._lost.remove(number)
        del self._running[number], self._findings[number]
        self._stopped.pop(number, None)
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        self._known.pop(number, None)  # what becomes of it is news again
        self.watcher.ended(number, self._record)

    def _found(self, number: int, findings: Findings) -> None:
        if not self.store.owns(number):
            self._lost.add(number)
            self.crew.answer(number, False)
            return
        self._findings[number] = findings
        self.watcher.found(number, findings)
        trial, stop = self._running[number], None
        if findings.step == "device":
            self.store.keep(number, findings)  # what was measured need not be measured again
        elif findings.step == "training":
            if self.store.note_progress(number, len(findings.history)):
                del self._deaths[number]
            loss = findings.objectives[TRAINED_OBJECTIVE]
            self._proposer.observe(trial.digest, len(findings.history), loss)
            stop = self._stopper.reason_to_stop(trial, findings)
        over = self._limits.missed(findings)
        if over and not trial.reference:
            self._stopped[number] = "rejected", over
        elif stop:
            self._stopped[number] = "stopped", stop
        self.crew.answer(number, number not in self._stopped)

    def _pause(self, number: int, state: State, reason: str) -> None:
        """End a training for the time; the study may come back to it until it ends."""
        del self._running[number]
        self.store.keep(number, self._findings.pop(number), stopped=True)
        trial = replace(self.store.trial(number), state=state, reason=reason)
        self._paused[trial.digest] = trial
        self._put(trial)

    def _finish(self, number: int, state: State, reason: str | None) -> None:
        trial = self._running.pop(number, None) or self._record.trial(number)
        self._paused.pop(trial.digest, None)
        findings = self._findings.pop(number, None) or _findings(trial)
        violations = self._limits.violations(findings.objectives, findings.metrics)
        if not self.store.finish(number, state, findings, reason, violations):
            self._let_go(number)
            return
        (self.store.artefacts / trial.digest / CHECKPOINT).unlink(missing_ok=True)
        ended = self.store.trial(number)
        self._tell(self._proposer, ended)
        self._stopper.ended(ended)
        self._put(ended)

    def _put(self, trial: TrialRecord) -> None:
        self._limits.count(trial)
        self._record = self._record.with_trial(trial)
        self.watcher.ended(trial.number, self._record)

    def _verdict(self, findings: Findings) -> tuple[State, str | None]:
        for name in self.config.objectives:
            value = findings.objectives.get(name)
            if value is None or not np.isfinite(value):
                return "failed", f"{name} is {value}"
        return "complete", None

    def _tell(self, proposer: Proposer, trial: TrialRecord) -> None:
        complete = trial.state == "complete"
        values = [trial.objectives[n] for n in self.config.objectives] if complete else None
        violations = self._limits.violations(trial.objectives, trial.metrics)
        proposer.tell(trial.digest, values, violations)


def _known(trial: TrialRecord) -> Findings | None:
    """Return what an evaluation that ended before its time had found, but for its training."""
    if not trial.objectives:
        return None
    return replace(
        _findings(trial),
        step="device",
        objectives={k: v for k, v in trial.objectives.items() if k != TRAINED_OBJECTIVE},
        history=(),
    )


def _findings(trial: TrialRecord) -> Findings:
    return Findings(
        "training",
        trial.objectives,
        trial.metrics,
        trial.intervals,
        trial.contended,
        trial.history,
        trial.timings_s,
    )
