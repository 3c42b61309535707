"""What is read and written of a study's trials, one at a time.

Each operation takes as long whatever the number of trials, but for `unfinished`.
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
from studies.storage.patience import patiently
from studies.store.frozen import new_trial, record_of
from studies.store.opened import OpenedStudy
from studies.store.others import NoOthers, Others


class Trials:
    """The trials of one study, for the driver that evaluates some of them.

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
        """Record that an architecture is being evaluated; return its trial number.

        Where there are other drivers: in a turn, having heard that none of them has it.
        """
        if self._beginning == architecture.digest and (begun := self.others.mine(self._beginning)):
            return begun.number  # it had been stored before the storage went away
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
        """Record how a trial ended. What the trial found is written before its state.

        Returns False, and records nothing, if the trial has become another driver's.
        """

        def record() -> bool:
            if self.others.ended(self._frozen(number)):
                return True  # it had been recorded before the storage went away
            if not self.owns(number):
                return False
            try:
                self._record_end(number, state, findings, reason, violations or {})
            except UpdateFinishedTrialError:  # this driver hung, and another one went on
                return False
            return True

        self.push(number)
        self._counts.pop(number, None)
        return self.others.in_turn(record)

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
            warnings.simplefilter(
                "ignore", UserWarning
            )  # it was recorded before the storage went away
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
        """Record what is known of a trial that is not over; it may be `stopped` for the time."""
        self._if_mine(number, findings=asdict(findings), stopped=stopped)
        self.push(number)

    def count_start(self, number: int) -> int:
        """Count a start of a trial's evaluation; return how many there were without progress.

        What is noted of its progress afterwards is this driver's alone to know.
        """
        stored = self._frozen(number).user_attrs  # another driver may have had it until now
        self._counts[number] = {name: int(stored.get(name, 0)) for name in ("starts", "epochs")}
        self._counts[number]["starts"] += 1
        self._if_mine(number, starts=self._counts[number]["starts"])
        return self._counts[number]["starts"]

    def note_progress(self, number: int, epochs: int) -> bool:
        """Forget the starts so far if this one got further than any before; return whether."""
        counts = self._counts[number]
        further = epochs > counts["epochs"]
        if further:
            forgotten = {"starts": 0} if counts["starts"] else {}
            counts |= {"epochs": epochs, **forgotten}
            self._if_mine(number, epochs=epochs, **forgotten)
        self.push(number)
        return further

    def forget_starts(self, number: int) -> None:
        """Forget the starts so far: nothing speaks against the candidate."""
        if self._counts.get(number, {}).get("starts"):
            self._counts[number]["starts"] = 0
            self._if_mine(number, starts=0)

    def owns(self, number: int) -> bool:
        """Whether a trial is this driver's and not over."""
        return self.others.me is None or self.others.own(self._frozen(number))

    def push(self, number: int) -> None:
        """Copy what is new in a trial's artefacts to where other drivers find it."""
        mirror = self._opened.mirror
        if mirror is not None and self.owns(number):
            mirror.push(self._frozen(number).user_attrs["candidate"]["digest"])

    def _if_mine(self, number: int, **attributes: Any) -> None:
        """Write attributes of a trial, unless it has ended or become another driver's."""

        def write() -> None:
            if self.owns(number):
                with suppress(UpdateFinishedTrialError):
                    self._note(self._trial_id(number), **attributes)

        patiently(write, self._opened.where)

    def _note(self, trial_id: int, **attributes: Any) -> None:
        for key, value in attributes.items():
            self._opened.storage.set_trial_user_attr(trial_id, key, value)

    def unfinished(self) -> list[TrialRecord]:
        """Return what a killed run left behind; what was killed before a start is failed.

        Where there may be other drivers, it is they who know: see `Others.hear`.
        """
        if self.others.me:
            return []
        trials = self._opened.study.get_trials(deepcopy=False)
        left = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for trial in left:
            if "candidate" not in trial.user_attrs:
                self._opened.study.tell(trial.number, state=TrialState.FAIL)
        return [record_of(trial) for trial in left if "candidate" in trial.user_attrs]

    @cached_property
    def _objectives(self) -> list[str]:
        names: list[str] = self._opened.attributes["config"]["objectives"]
        return names

    def _frozen(self, number: int) -> FrozenTrial:
        storage = self._opened.storage
        return patiently(lambda: storage.get_trial(self._trial_id(number)), self._opened.where)

    def _trial_id(self, number: int) -> int:
        opened = self._opened
        return opened.storage.get_trial_id_from_study_id_trial_number(opened.study_id, number)
