"""The other drivers of a study, seen from this one: what they did, and what they left behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from studies.record.records import State, TrialRecord
from studies.storage.locks import DriverLock
from studies.storage.patience import is_away, patiently
from studies.store import drivers
from studies.store.drivers import Drivers
from studies.store.frozen import OWNER, record_of, state_of

T = TypeVar("T")

_SETTLED = ("complete", "rejected", "failed")


class Others:
    """Nobody, where a study has one driver: then there is nothing to hear and nobody to wait for.

    Args:
        storage: Where the study is; None where it has one driver.
        study_id: The study's number in it.
        where: The storage's address without its password.
        turn: Waits for this driver's turn.
    """

    def __init__(
        self,
        storage: BaseStorage | None = None,
        study_id: int = 0,
        where: str = "",
        turn: DriverLock = nullcontext,
    ) -> None:
        self._study_id, self._where, self._turn = study_id, where, turn
        self._has_turn = False
        self._said: str | None = None
        self._adopted: list[FrozenTrial] = []  # kept if the storage goes away before all are
        self._storage = storage
        self._drivers: Drivers | None = None

    def join(self) -> None:
        """Become known to the others, until `leave`."""
        if self._storage is not None:
            storage, study_id = self._storage, self._study_id
            self._drivers = patiently(lambda: Drivers(storage, study_id), self._where)

    def leave(self) -> None:
        """Say goodbye: what this driver left unfinished is free at once."""
        if self._drivers is not None:
            self._drivers.leave()
            self._drivers = None

    @property
    def me(self) -> str | None:
        """What this driver's trials are marked with; None where it is alone."""
        return self._drivers.name if self._drivers else None

    def alive(self) -> set[str]:
        """Return the names of the drivers that are not gone, this one's among them."""
        known = self._drivers
        return patiently(known.alive, self._where) if known else set()

    def in_turn(self, action: Callable[[], T]) -> T:
        """Do something while no other driver decides anything; patient with the storage.

        `action` may be done again when the storage went away meanwhile.
        """
        if self._has_turn:
            return action()
        return patiently(lambda: self._once(action), self._where)

    def _once(self, action: Callable[[], T]) -> T:
        done: list[T] = []
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

    def hear(self, known: Mapping[int, State]) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return what others did, and take over what they left; only in one's turn.

        Args:
            known: The states last heard of, by trial number.

        Returns:
            Trials of others whose state is another one by now; trials that were theirs until now.
        """
        trials = [trial for trial in self._trials() if known.get(trial.number) not in _SETTLED]
        theirs = [trial for trial in trials if trial.user_attrs.get(OWNER) != self.me]
        news = [trial for trial in theirs if state_of(trial) != known.get(trial.number)]
        self._adopt(theirs)
        adopted, self._adopted = self._adopted, []
        return [*map(record_of, news)], [*map(record_of, adopted)]

    def _adopt(self, theirs: Iterable[FrozenTrial]) -> None:
        unfinished = [trial for trial in theirs if not trial.state.is_finished()]
        if not unfinished or self._drivers is None or self._storage is None:
            return
        alive = self._drivers.alive()
        for trial in unfinished:
            if trial.user_attrs.get(OWNER) not in alive:
                self._storage.set_trial_user_attr(trial._trial_id, OWNER, self.me)
                self._adopted.append(trial)

    def ended(self, trial: FrozenTrial) -> bool:
        """Whether this driver has told how a trial ended; never, where it is alone."""
        if self._drivers is None:
            return False
        return trial.state.is_finished() and trial.user_attrs.get(OWNER) == self.me

    def own(self, trial: FrozenTrial) -> bool:
        """Whether a trial is still this driver's: not told, and not taken over."""
        if self._drivers is None:
            return True
        return trial.state == TrialState.RUNNING and trial.user_attrs.get(OWNER) == self.me

    def mine(self, digest: str) -> FrozenTrial | None:
        """Return this driver's own unfinished trial of an architecture, if it is stored."""
        for trial in self._unfinished():
            if self.own(trial) and trial.user_attrs["candidate"]["digest"] == digest:
                return trial
        return None

    def wait(self) -> bool:
        """Wait a little if others still evaluate something, which may yet fall to this driver.

        Returns False if nobody does.
        """
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
        if self._drivers is None or self._storage is None:
            return True
        holder = self._storage.get_study_system_attrs(self._study_id).get(f"claim:{task}")
        if holder not in (None, self.me) and holder in self._drivers.alive():
            return False
        self._write_claim(task, self.me)
        return True

    def _write_claim(self, task: str, holder: str | None) -> None:
        if self._storage is not None and self._drivers is not None:
            self._storage.set_study_system_attr(self._study_id, f"claim:{task}", holder)

    def _running(self) -> int:
        trials = [t for t in self._unfinished() if not self.own(t) and state_of(t) == "running"]
        return len(trials)

    def _unfinished(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if not trial.state.is_finished()]

    def _trials(self) -> list[FrozenTrial]:
        if self._storage is None or self._drivers is None:
            return []
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return [trial for trial in trials if "candidate" in trial.user_attrs]

    def _say(self, text: str) -> None:
        if text != self._said:
            print(text, file=sys.stderr)
        self._said = text
