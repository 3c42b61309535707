"""The other drivers of a study, seen from this one: what they did, and what they left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from studies.record.records import State, TrialRecord
from studies.storage.locks import DriverLock
from studies.storage.patience import is_away, patiently
from studies.store import drivers
from studies.store.drivers import Drivers
from studies.store.frozen import OWNER, record_of, state_of

Result = TypeVar("Result")

_SETTLED = ("complete", "rejected", "failed")


class Others(Protocol):
    """The study's other drivers; with a single driver every method does nothing."""

    @property
    def me(self) -> str | None:
        """Name that this driver's trials carry; None where it is the only driver."""

    def leave(self) -> None:
        """Record the end of this driver: what it left unfinished is free at once."""

    def alive(self) -> set[str]:
        """Return the names of the drivers that are not gone, this one's among them."""

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """Do something while no other driver decides anything; patient with the storage.

        `action` may be done again when the storage went away meanwhile.
        """

    def hear(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return what others did, and take over what they left; only in one's turn.

        Args:
            known: The states last heard of, by trial number.

        Returns:
            Trials of others whose state is another one by now; trials that were theirs until now.
        """

    def ended(self, trial: FrozenTrial) -> bool:
        """Whether this driver has recorded how a trial ended; False for the only driver."""

    def own(self, trial: FrozenTrial) -> bool:
        """Whether a trial is still this driver's: not ended, and not taken over."""

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return this driver's own unfinished trial of an architecture, if it is stored."""

    def wait(self) -> bool:
        """Wait a little if others still evaluate something, which may yet fall to this driver.

        Returns False if nobody does.
        """

    def claimed(self, task: str) -> AbstractContextManager[None]:
        """Do something that one driver at a time shall do, and which may take long."""


class NoOthers:
    """The other drivers of a study that has a single one.

    Args:
        where: The storage's address without its password.
    """

    me = None

    def __init__(self, where: str = "") -> None:
        self._where = where

    def leave(self) -> None:
        """Do nothing: nobody waits for what this driver left."""

    def alive(self) -> set[str]:
        """Return no names."""
        return set()

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """Do something, patient with the storage."""
        return patiently(action, self._where)

    def hear(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return nothing: nobody did or left anything."""
        return [], []

    def ended(self, trial: FrozenTrial) -> bool:
        """Return False: what was recorded is never recorded twice."""
        return False

    def own(self, trial: FrozenTrial) -> bool:
        """Return True: every trial is the only driver's."""
        return True

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return None: no trial has an owner's name."""
        return None

    def wait(self) -> bool:
        """Return False: there is nobody to wait for."""
        return False

    def claimed(self, task: str) -> AbstractContextManager[None]:
        """Return at once: nobody else may have claimed it."""
        return nullcontext()


class InTurn:
    """Does something while no other driver decides anything; patient with the storage.

    Args:
        turn: Waits for this driver's turn.
        where: The storage's address without its password.
    """

    def __init__(self, turn: DriverLock, where: str) -> None:
        self._turn, self._where = turn, where
        self._has_turn = False

    def __call__(self, action: Callable[[], Result]) -> Result:
        """Return what `action` returns; within a turn, there is no waiting for another."""
        if self._has_turn:
            return action()
        return patiently(lambda: self._once(action), self._where)

    def _once(self, action: Callable[[], Result]) -> Result:
        done: list[Result] = []
        try:
            with self._turn():
                self._has_turn = True
                done.append(action())
        except Exception as error:
            if not (done and is_away(error)):  # else it went away when all was done
                raise
        finally:
            self._has_turn = False
        return done[0]


class OtherDrivers:
    """The other drivers of a study in a database; this one is known to them until `leave`.

    Args:
        storage: Where the study is.
        study_id: The study's number in it.
        where: The storage's address without its password.
        turn: Waits for this driver's turn.
    """

    def __init__(
        self, storage: BaseStorage, study_id: int, where: str, turn: DriverLock = nullcontext
    ) -> None:
        self._storage, self._study_id, self._where = storage, study_id, where
        self._in_turn = InTurn(turn, where)
        self._said: str | None = None
        self._adopted: list[FrozenTrial] = []  # kept if the storage goes away before all are
        self._drivers = patiently(lambda: Drivers(storage, study_id), where)

    def leave(self) -> None:
        """Record the end of this driver: what it left unfinished is free at once."""
        self._drivers.leave()

    @property
    def me(self) -> str:
        """Name that this driver's trials carry."""
        return self._drivers.name

    def alive(self) -> set[str]:
        """Return the names of the drivers that are not gone, this one's among them."""
        return patiently(self._drivers.alive, self._where)

    def in_turn(self, action: Callable[[], Result]) -> Result:
        """Do something while no other driver decides anything."""
        return self._in_turn(action)

    def hear(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return what others did, and take over what they left; only in one's turn."""
        trials = [trial for trial in self._trials() if known.get(trial.number) not in _SETTLED]
        theirs = [trial for trial in trials if trial.user_attrs.get(OWNER) != self.me]
        news = [trial for trial in theirs if state_of(trial) != known.get(trial.number)]
        self._adopt(theirs)
        adopted, self._adopted = self._adopted, []
        return [*map(record_of, news)], [*map(record_of, adopted)]

    def _adopt(self, theirs: Iterable[FrozenTrial]) -> None:
        unfinished = [trial for trial in theirs if not trial.state.is_finished()]
        if not unfinished:
            return
        alive = self._drivers.alive()
        for trial in unfinished:
            if trial.user_attrs.get(OWNER) not in alive:
                self._storage.set_trial_user_attr(trial._trial_id, OWNER, self.me)
                self._adopted.append(trial)

    def ended(self, trial: FrozenTrial) -> bool:
        """Whether this driver has recorded how a trial ended."""
        return trial.state.is_finished() and trial.user_attrs.get(OWNER) == self.me

    def own(self, trial: FrozenTrial) -> bool:
        """Whether a trial is still this driver's: not ended, and not taken over."""
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER) == self.me

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return this driver's own unfinished trial of an architecture, if it is stored."""
        for trial in self._unfinished():
            if self.own(trial) and trial.user_attrs["candidate"]["digest"] == digest:
                return trial
        return None

    def wait(self) -> bool:
        """Wait a little if others still evaluate something; return False if nobody does."""
        running = patiently(self._running, self._where)
        if running:
            self._say(f"waiting for {running} trial(s) of other drivers")
            time.sleep(drivers.BEAT_S / 4)
        return bool(running)

    @contextmanager
    def claimed(self, task: str) -> Iterator[None]:
        """Do something that one driver at a time shall do, and which may take long."""
        while not self.in_turn(lambda: self._claim(task)):
            self._say(f"another driver is {task}; waiting for it")
            time.sleep(drivers.BEAT_S / 4)
        try:
            yield
        finally:
            self.in_turn(lambda: self._write_claim(task, None))

    def _claim(self, task: str) -> bool:
        holder = self._storage.get_study_system_attrs(self._study_id).get(f"claim:{task}")
        if holder not in (None, self.me) and holder in self._drivers.alive():
            return False
        self._write_claim(task, self.me)
        return True

    def _write_claim(self, task: str, holder: str | None) -> None:
        self._storage.set_study_system_attr(self._study_id, f"claim:{task}", holder)

    def _running(self) -> int:
        trials = [t for t in self._unfinished() if not self.own(t) and state_of(t) == "running"]
        return len(trials)

    def _unfinished(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if not trial.state.is_finished()]

    def _trials(self) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return [trial for trial in trials if "candidate" in trial.user_attrs]

    def _say(self, text: str) -> None:
        if text != self._said:
            print(text, file=sys.stderr)
        self._said = text
