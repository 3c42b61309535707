"""The other drivers of a study: read their trials, and take over those of ended drivers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from search_spaces.visible import visible
from studies.record.records import State, TrialRecord
from studies.storage.locks import DriverLock
from studies.storage.patience import is_away, retrying
from studies.store import drivers
from studies.store.drivers import Drivers
from studies.store.frozen import OWNER, last_of_each, record_of, state_of

_Result = TypeVar("_Result")

_SETTLED = ("complete", "rejected", "open", "failed")


class Others(Protocol):
    """The study's other drivers; with a single driver every method does nothing."""

    @property
    def me(self) -> str | None:
        """Name of this driver, which its trials carry; None where it is the only driver."""

    def leave(self) -> None:
        """Record the end of this driver, so that others take over its unfinished trials at once."""

    def alive(self) -> set[str]:
        """Return the names of the living drivers, including this one."""

    def exclusively(self, action: Callable[[], _Result]) -> _Result:
        """Call `action` while holding the drivers' lock; retry while the storage is unavailable.

        `action` may be called again if the storage failed meanwhile.
        """

    def poll(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return the news of other drivers, and take over the trials of ended ones.

        Call it only inside `exclusively`.

        Args:
            known: The last known states, by trial number.

        Returns:
            Trials of others whose state has changed; trials that this driver has taken over.
        """

    def ended(self, trial: FrozenTrial) -> bool:
        """Return whether this driver has recorded a trial's end; False for the only driver."""

    def own(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is this driver's: it has not ended and is not taken over."""

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return this driver's unfinished trial of an architecture; None if none is stored."""

    def wait(self) -> bool:
        """Wait some seconds if others still evaluate trials, which this driver may take over.

        Returns False, without waiting, if no other driver evaluates.
        """

    def claimed(self, task: str) -> AbstractContextManager[None]:
        """Claim a long task for the block: one driver at a time does it, the others wait."""


class NoOthers:
    """The other drivers of a study with a single driver: there are none.

    Args:
        where: The storage's address without its password.
    """

    me = None

    def __init__(self, where: str = "") -> None:
        self._where = where

    def leave(self) -> None:
        """Do nothing: no other driver waits for this driver's trials."""

    def alive(self) -> set[str]:
        """Return no names."""
        return set()

    def exclusively(self, action: Callable[[], _Result]) -> _Result:
        """Call `action`; retry while the storage is unavailable."""
        return retrying(action, self._where)

    def poll(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return no trials."""
        return [], []

    def ended(self, trial: FrozenTrial) -> bool:
        """Return False: the only driver records each end once."""
        return False

    def own(self, trial: FrozenTrial) -> bool:
        """Return True: every trial is the only driver's."""
        return True

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return None: no trial has an owner's name."""
        return None

    def wait(self) -> bool:
        """Return False: there is no driver to wait for."""
        return False

    def claimed(self, task: str) -> AbstractContextManager[None]:
        """Return at once: no other driver can have claimed the task."""
        return nullcontext()


class Exclusive:
    """Calls actions while holding the drivers' lock; retries while the storage is unavailable.

    Args:
        lock: The lock that all drivers of the study share.
        where: The storage's address without its password.
    """

    def __init__(self, lock: DriverLock, where: str) -> None:
        self._lock, self._where = lock, where
        self._holds_lock = False

    def __call__(self, action: Callable[[], _Result]) -> _Result:
        """Return the result of `action`; inside another action, the lock is held already."""
        if self._holds_lock:
            return action()
        return retrying(lambda: self._once(action), self._where)

    def _once(self, action: Callable[[], _Result]) -> _Result:
        done: list[_Result] = []
        try:
            with self._lock():
                self._holds_lock = True
                done.append(action())
        except Exception as error:
            if not (done and is_away(error)):  # otherwise only releasing the lock failed
                raise
        finally:
            self._holds_lock = False
        return done[0]


class OtherDrivers:
    """The other drivers of a study in a database; this one is registered until `leave`.

    Args:
        storage: The study's storage.
        study_id: The study's number in the storage.
        where: The storage's address without its password.
        lock: The lock that all drivers of the study share.
    """

    def __init__(
        self, storage: BaseStorage, study_id: int, where: str, lock: DriverLock = nullcontext
    ) -> None:
        self._storage, self._study_id, self._where = storage, study_id, where
        self._exclusively = Exclusive(lock, where)
        self._said: str | None = None
        self._adopted: list[FrozenTrial] = []  # kept if the storage fails before all are taken over
        self._drivers = retrying(lambda: Drivers(storage, study_id), where)

    def leave(self) -> None:
        """Record the end of this driver, so that others take over its unfinished trials at once."""
        self._drivers.leave()

    @property
    def me(self) -> str:
        """Name of this driver, which its trials carry."""
        return self._drivers.name

    def alive(self) -> set[str]:
        """Return the names of the living drivers, including this one."""
        return retrying(self._drivers.alive, self._where)

    def exclusively(self, action: Callable[[], _Result]) -> _Result:
        """Call `action` while holding the drivers' lock."""
        return self._exclusively(action)

    def poll(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return the news of other drivers, and take over the trials of ended ones."""
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
        """Return whether this driver has recorded a trial's end."""
        return trial.state.is_finished() and trial.user_attrs.get(OWNER) == self.me

    def own(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is this driver's: it has not ended and is not taken over."""
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER) == self.me

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return this driver's unfinished trial of an architecture; None if none is stored."""
        for trial in self._unfinished():
            if self.own(trial) and trial.user_attrs["candidate"]["digest"] == digest:
                return trial
        return None

    def wait(self) -> bool:
        """Wait some seconds if others still evaluate trials; return False if none does."""
        running = retrying(self._running, self._where)
        if running:
            self._say(f"waiting for {running} trial(s) of other drivers")
            time.sleep(drivers.BEAT_S / 4)
        return bool(running)

    @contextmanager
    def claimed(self, task: str) -> Iterator[None]:
        """Claim a long task for the block: one driver at a time does it, the others wait."""
        while not self.exclusively(lambda: self._claim(task)):
            self._say(f"another driver is {task}; waiting for it")
            time.sleep(drivers.BEAT_S / 4)
        try:
            yield
        finally:
            self.exclusively(lambda: self._write_claim(task, None))

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
        return last_of_each(self._storage.get_all_trials(self._study_id, deepcopy=False))

    def _say(self, text: str) -> None:
        if text != self._said:
            print(visible(text), file=sys.stderr)
        self._said = text
