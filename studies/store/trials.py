"""Read and write the trials of a study, one at a time.

The time of each operation does not depend on the number of trials, except for `unfinished`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.findings import Findings
from nas.search.samplers import quiet_optuna
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.record.records import State, TrialRecord
from studies.storage.patience import retrying
from studies.store.frozen import new_trial, record_of
from studies.store.opened import OpenedStudy
from studies.store.others import NoOthers, Others


class Trials:
    """The trials of one study, as one of its drivers reads and writes them.

    Args:
        opened: The study in its storage.

    Attributes:
        others: The study's other drivers.
    """

    def __init__(self, opened: OpenedStudy) -> None:
        self._opened = opened
        self.others: Others = NoOthers(opened.where)
        self._beginning: str | None = None
        # Starts without progress and epochs of the trials that this driver started, by number.
        self._counts: dict[int, dict[str, int]] = {}

    def record(self, number: int) -> TrialRecord:
        """Read one trial, with its latency as it was measured during the search."""
        return record_of(self._frozen(number))

    def begin(
        self,
        architecture: Architecture,
        assignment: Mapping[str, Any] | None,
        space: SearchSpace,
        reference: str | None = None,
        repeats: int = 0,
    ) -> int:
        """Record a new running trial; return its number.

        Where there are other drivers, call it inside `others.exclusively`, after `others.poll` has
        shown that no driver evaluates this architecture.

        Args:
            architecture: The candidate.
            assignment: Its choice on each axis; None outside the space.
            space: The search space.
            reference: Name of the reference model that it is, or None.
            repeats: Number of proposals of known architectures just before it.
        """
        if self._beginning == architecture.digest and (begun := self.others.mine(self._beginning)):
            return begun.number  # it was stored before the storage failed
        self._beginning = architecture.digest
        trial = new_trial(architecture, assignment, space, reference, repeats, self.others.me)
        storage = self._opened.storage
        trial_id = storage.create_new_trial(self._opened.study_id, trial)
        number = storage.get_trial(trial_id).number
        self._beginning = None
        return number

    def finish(
        self,
        number: int,
        state: State,
        findings: Findings,
        reason: str | None = None,
        violations: Mapping[str, float] | None = None,
    ) -> bool:
        """Record the end of a trial. Its findings are written before its state.

        Args:
            number: The trial's number.
            state: Its final state.
            findings: Its findings.
            reason: Why it was rejected, stopped or failed.
            violations: Relative excess over each limit.

        Returns:
            False if another driver has taken over the trial; then nothing is recorded.
        """

        def record() -> bool:
            if self.others.ended(self._frozen(number)):
                return True  # it was recorded before the storage failed
            if not self.owns(number):
                return False
            try:
                self._record_end(number, state, findings, reason, violations or {})
            except UpdateFinishedTrialError:  # this driver hung; another one finished the trial
                return False
            return True

        self.push(number)
        self._counts.pop(number, None)
        return self.others.exclusively(record)

    def _record_end(
        self,
        number: int,
        state: State,
        findings: Findings,
        reason: str | None,
        violations: Mapping[str, float],
    ) -> None:
        study, trial_id = self._opened.study, self._trial_id(number)
        self._note(trial_id, findings=asdict(findings), reason=reason)
        with quiet_optuna(), warnings.catch_warnings():
            # Optuna warns if the trial was recorded before the storage failed.
            warnings.simplefilter("ignore", UserWarning)
            for key, violation in violations.items():
                Trial(study, trial_id).set_constraint(key, violation)
            if state == "complete":
                values = [findings.objectives[name] for name in self._objectives]
                study.tell(number, values, skip_if_finished=True)
                return
            self._note(trial_id, stopped=state == "stopped")
            ended = TrialState.FAIL if state == "failed" else TrialState.PRUNED
            study.tell(number, state=ended, skip_if_finished=True)

    def keep(self, number: int, findings: Findings, stopped: bool = False) -> None:
        """Record the findings of an unfinished trial, and whether early stopping has paused it."""
        self._if_mine(number, findings=asdict(findings), stopped=stopped)
        self.push(number)

    def count_start(self, number: int) -> int:
        """Count a start of a trial's evaluation; return the number of starts without progress.

        From then on the counts of the trial are kept in memory: only this driver changes them.
        """
        stored = self._frozen(number).user_attrs  # another driver may have had it until now
        self._counts[number] = {name: int(stored.get(name, 0)) for name in ("starts", "epochs")}
        self._counts[number]["starts"] += 1
        self._if_mine(number, starts=self._counts[number]["starts"])
        return self._counts[number]["starts"]

    def note_progress(self, number: int, epochs: int) -> bool:
        """Reset the starts if this evaluation has more epochs than any before; return whether."""
        counts = self._counts[number]
        further = epochs > counts["epochs"]
        if further:
            forgotten = {"starts": 0} if counts["starts"] else {}
            counts |= {"epochs": epochs, **forgotten}
            self._if_mine(number, epochs=epochs, **forgotten)
        self.push(number)
        return further

    def forget_starts(self, number: int) -> None:
        """Reset the number of starts: the candidate did not cause their failure."""
        if self._counts.get(number, {}).get("starts"):
            self._counts[number]["starts"] = 0
            self._if_mine(number, starts=0)

    def owns(self, number: int) -> bool:
        """Return whether a trial is this driver's and has not ended."""
        return self.others.me is None or self.others.own(self._frozen(number))

    def push(self, number: int) -> None:
        """Copy new artefacts of a trial to the study's store of artefacts, if it has one."""
        mirror = self._opened.mirror
        if mirror is not None and self.owns(number):
            mirror.push(self._frozen(number).user_attrs["candidate"]["digest"])

    def _if_mine(self, number: int, **attributes: Any) -> None:
        """Write attributes of a trial, unless it has ended or another driver has taken it over."""

        def write() -> None:
            if self.owns(number):
                with suppress(UpdateFinishedTrialError):
                    self._note(self._trial_id(number), **attributes)

        retrying(write, self._opened.where)

    def _note(self, trial_id: int, **attributes: Any) -> None:
        for key, value in attributes.items():
            self._opened.storage.set_trial_user_attr(trial_id, key, value)

    def unfinished(self) -> list[TrialRecord]:
        """Return the unfinished trials of a killed run; fail those that were not stored whole.

        Where there may be other drivers, it returns none: `Others.poll` takes them over.
        """
        if self.others.me:
            return []
        trials = self._opened.study.get_trials(deepcopy=False)
        left = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in left:
            if "candidate" not in trial.user_attrs:
                self._opened.study.tell(trial.number, state=TrialState.FAIL)
        return [record_of(trial) for trial in left if "candidate" in trial.user_attrs]

    def ended(self) -> set[str]:
        """Return the digests of the architectures whose trials have all ended."""
        trials = retrying(lambda: self._opened.study.get_trials(deepcopy=False), self._opened.where)
        digests: dict[bool, set[str]] = {True: set(), False: set()}
        for trial in trials:
            if "candidate" in trial.user_attrs:
                digest = trial.user_attrs["candidate"]["digest"]
                digests[trial.state.is_finished()].add(digest)
        return digests[True] - digests[False]

    @cached_property
    def _objectives(self) -> list[str]:
        names: list[str] = self._opened.attributes["config"]["objectives"]
        return names

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._opened.storage
        return retrying(lambda: storage.get_trial(self._trial_id(number)), self._opened.where)

    def _trial_id(self, number: int) -> int:
        opened = self._opened
        return opened.storage.get_trial_id_from_study_id_trial_number(opened.study_id, number)
