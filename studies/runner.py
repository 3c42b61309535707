"""Run a study: references first, then one unseen candidate after another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from nas.evaluate import CandidateFailed, Findings
from nas.search import Proposer
from search_spaces.architecture import Architecture
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.config import StudyConfig
from studies.records import State, StudyRecord, TrialRecord
from studies.store import StudyStore

MAX_REJECTIONS = 300
"""Candidates over a hard limit in a row after which a study ends: its limits leave too little."""

MAX_MEASURED_REJECTIONS = 20
"""The same for candidates that had to be measured, which takes seconds each."""

MAX_STARTS = 3
"""Starts of one trial without an epoch of progress after which it has failed."""


class Evaluator(Protocol):
    """Anything that turns an architecture into a growing stream of findings."""

    def __call__(self, architecture: Architecture) -> Iterator[Findings]:
        """Yield what is known after each step; the last one has `step == "done"`.

        Raises:
            CandidateFailed: the candidate cannot be evaluated; the study goes on without it.
        """


class Watcher:
    """What a display may want to know. Does nothing by itself."""

    def started(self, trial: TrialRecord, study: StudyRecord) -> None:
        """A candidate is about to be evaluated."""

    def found(self, findings: Findings) -> None:
        """More is known of the current candidate."""

    def ended(self, study: StudyRecord) -> None:
        """A candidate was told."""


class Runner:
    """Drives one study in this process; alone it asks and tells.

    Args:
        config: The question.
        space: Where candidates come from; its image size is that of the data.
        store: Where everything is recorded; opened for writing by the caller.
        evaluate: Turns an architecture into findings.
        watcher: Is told what happens.
    """

    def __init__(
        self,
        config: StudyConfig,
        space: SearchSpace,
        store: StudyStore,
        evaluate: Evaluator,
        watcher: Watcher | None = None,
    ) -> None:
        self.config, self.space, self.store = config, space, store
        self.evaluate = evaluate
        self.watcher = watcher or Watcher()
        self.gave_up: str | None = None
        self._record = store.record()
        self._proposer = self._restore()

    def run(self) -> StudyRecord:
        """Finish what was left unfinished, then run until the study has its trials."""
        for trial in self.store.unfinished():
            self._evaluate(trial)
        for name, architecture in REFERENCES.items():
            self._run_reference(name, architecture.resized(self.space.image_size))
        while self.searched < self.config.search.trials:
            self.gave_up = self._hopeless()
            if self.gave_up:
                break
            proposal = self._proposer.propose()
            if proposal is None:
                break
            number = self.store.begin(
                proposal.architecture, proposal.assignment, self.space, repeats=proposal.repeats
            )
            self._evaluate(self.store.trial(number))
        return self._record

    @property
    def searched(self) -> int:
        """Number of candidates evaluated so far, references and rejections apart."""
        return sum(
            not trial.reference and trial.state in ("complete", "failed")
            for trial in self._record.trials
        )

    def _restore(self) -> Proposer:
        proposer = Proposer(
            self.space,
            self.config.search.sampler,
            len(self.config.objectives),
            seed=self.config.search.seed,
        )
        for trial in self._record.trials:
            proposer.register(self.space.assignment(trial.architecture), trial.architecture)
            if trial.state != "running":
                self._tell(proposer, trial)
        return proposer

    def _hopeless(self) -> str | None:
        """Say why the limits leave too little to go on, or None while they do not."""
        searched = [t for t in self._record.trials if not t.reference]
        row = list(itertools.takewhile(lambda t: t.state == "rejected", reversed(searched)))
        measured = sum("latency_ms" in t.objectives for t in row)
        if len(row) < MAX_REJECTIONS and measured < MAX_MEASURED_REJECTIONS:
            return None
        smallest = ", ".join(
            f"{name} {min(t.objectives[name] for t in row if name in t.objectives):.4g}"
            for name in self.config.limits
            if any(name in t.objectives for t in row)
        )
        limits = ", ".join(f"{name} {limit:g}" for name, limit in self.config.limits.items())
        return (
            f"limits: the last {len(row)} candidates were all over {limits}; the smallest values "
            f"among them are {smallest}: raise the limits or choose another space"
        )

    def _run_reference(self, name: str, architecture: Architecture) -> None:
        if name in {trial.reference for trial in self._record.trials}:
            return
        assignment = self.space.assignment(architecture)
        self._proposer.register(assignment, architecture)
        number = self.store.begin(architecture, assignment, self.space, reference=name)
        self._evaluate(self.store.trial(number))

    def _evaluate(self, trial: TrialRecord) -> None:
        self.watcher.started(trial, self._record)
        state: State = "failed"
        reason: str | None = "the evaluation ended without a result"
        findings = Findings("static")
        starts = self.store.count_start(trial.number)
        try:
            if starts > MAX_STARTS:
                raise CandidateFailed(f"the process ended {MAX_STARTS} times while evaluating it")
            for findings in self.evaluate(trial.architecture):
                self.watcher.found(findings)
                if findings.step == "training":
                    self.store.note_progress(trial.number)
                over = None if trial.reference else self._over_limit(findings.objectives)
                if over:
                    state, reason = "rejected", over
                    break
            else:
                state, reason = self._verdict(findings)
        except CandidateFailed as failure:
            reason = str(failure)
        violations = self._violations(findings.objectives)
        self.store.finish(trial.number, state, findings, reason, violations)
        ended = self.store.trial(trial.number)
        others = (t for t in self._record.trials if t.number != trial.number)
        self._record = replace(self._record, trials=(*others, ended))
        self._tell(self._proposer, ended)
        self.watcher.ended(self._record)

    def _verdict(self, findings: Findings) -> tuple[State, str | None]:
        for name in self.config.objectives:
            value = findings.objectives.get(name)
            if value is None or not np.isfinite(value):
                return "failed", f"{name} is {value}"
        return "complete", None

    def _tell(self, proposer: Proposer, trial: TrialRecord) -> None:
        complete = trial.state == "complete"
        values = [trial.objectives[n] for n in self.config.objectives] if complete else None
        proposer.tell(trial.digest, values, self._violations(trial.objectives))

    def _violations(self, objectives: Mapping[str, float]) -> dict[str, float]:
        return {
            name: objectives[name] / limit - 1
            for name, limit in self.config.limits.items()
            if name in objectives
        }

    def _over_limit(self, objectives: Mapping[str, float]) -> str | None:
        for name, excess in self._violations(objectives).items():
            if excess > 0:
                return (
                    f"{name} {objectives[name]:.6g} is over the limit {self.config.limits[name]:g}"
                )
        return None
