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

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.findings import Findings
from nas.search.samplers import quiet_optuna
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from studies.record.records import State, TrialRecord
from studies.storage.mirror import Mirror
from studies.storage.patience import patiently
from studies.store.frozen import new_trial, record_of
from studies.store.others import Others


class Trials:
    """The trials of one study, for the driver that evaluates some of them.

    Attributes:
        others: The study's other drivers.
        where: The storage's address without its password.
    """

    others: Others
    where: str
    _beginning: str | None = None

    def _open(self) -> tuple[BaseStorage, optuna.Study]:
        """Return the storage and the study in it."""
        raise NotImplementedError

    @property
    def study(self) -> optuna.Study:
        """The Optuna study underneath; raises `UserError` if there is none yet."""
        return self._open()[1]

    @cached_property
    def mirror(self) -> Mirror | None:
        """Where artefacts are copied to, if the study has such a place."""
        raise NotImplementedError

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
        storage, study_id = self._opened
        if self._beginning == architecture.digest and (begun := self.others.mine(self._beginning)):
            return begun.number  # it had been stored before the storage went away
        self._beginning = architecture.digest
        trial = new_trial(architecture, assignment, space, reference, repeats, self.others.me)
        number = storage.get_trial(storage.create_new_trial(study_id, trial)).number
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

        def told() -> bool:
            if self.others.ended(self._frozen(number)):
                return True  # it had been told before the storage went away
            if not self.owns(number):
                return False
            try:
                self._finish(number, state, findings, reason, violations or {})
            except UpdateFinishedTrialError:  # this driver hung, and another one went on
                return False
            return True

        self.push(number)
        self._counts.pop(number, None)
        return self.others.in_turn(told)

    def _finish(
        self,
        number: int,
        state: State,
        findings: Findings,
        reason: str | None,
        violations: Mapping[str, float],
    ) -> None:
        trial_id = self._trial_id(number)
        self._note(trial_id, findings=asdict(findings), reason=reason)
        with quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it was told before the storage went away
            for key, violation in violations.items():
                Trial(self.study, trial_id).set_constraint(key, violation)
            if state == "complete":
                values = [findings.objectives[name] for name in self._objectives]
                self.study.tell(number, values, skip_if_finished=True)
                return
            self._note(trial_id, stopped=state == "stopped")
            ended = TrialState.FAIL if state == "failed" else TrialState.PRUNED
            self.study.tell(number, state=ended, skip_if_finished=True)

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

    def fetch(self, name: str = "", only: str | None = None) -> None:
        """Bring artefacts here that other drivers left: an architecture's, or those called `only`.

        Raises:
            UserError: they are kept somewhere that cannot be read now.
        """
        if self.mirror is not None:
            self.mirror.pull(name, only)

    def push(self, number: int) -> None:
        """Copy what is new in a trial's artefacts to where other drivers find it."""
        if self.mirror is not None and self.owns(number):
            self.mirror.push(self._frozen(number).user_attrs["candidate"]["digest"])

    def _if_mine(self, number: int, **attributes: Any) -> None:
        """Write attributes of a trial, unless it has ended or become another driver's."""

        def write() -> None:
            if self.owns(number):
                with suppress(UpdateFinishedTrialError):
                    self._note(self._trial_id(number), **attributes)

        patiently(write, self.where)

    def _note(self, trial_id: int, **attributes: Any) -> None:
        storage, _ = self._opened
        for key, value in attributes.items():
            storage.set_trial_user_attr(trial_id, key, value)

    def unfinished(self) -> list[TrialRecord]:
        """Return what a killed run left behind; what was killed before a start is failed.

        Where there may be other drivers, it is they who know: see `Others.orphans`.
        """
        if self.others.me:
            return []
        left = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        for trial in left:
            if "candidate" not in trial.user_attrs:
                self.study.tell(trial.number, state=TrialState.FAIL)
        return [record_of(trial) for trial in left if "candidate" in trial.user_attrs]

    @cached_property
    def _counts(self) -> dict[int, dict[str, int]]:
        """Starts without progress and epochs of the trials that this driver started, by number."""
        return {}

    @cached_property
    def _objectives(self) -> list[str]:
        names: list[str] = self.study.user_attrs["config"]["objectives"]
        return names

    @cached_property
    def _opened(self) -> tuple[BaseStorage, int]:
        storage, study = self._open()
        return storage, storage.get_study_id_from_name(study.study_name)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _frozen(self, number: int) -> FrozenTrial:
        storage, _ = self._opened
        return patiently(lambda: storage.get_trial(self._trial_id(number)), self.where)

    def _trial_id(self, number: int) -> int:
        storage, study_id = self._opened
        return storage.get_trial_id_from_study_id_trial_number(study_id, number)
