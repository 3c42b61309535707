"""Ownership of trials: drivers with a heartbeat, silent drivers, drivers that signed off."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from sqlalchemy.exc import DataError, OperationalError

from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from studies.storage import locks, patience
from studies.storage.locks import NameLock
from studies.storage.patience import retrying
from studies.store import drivers
from studies.store.drivers import LOOKS, Driver, Drivers
from studies.store.frozen import OWNER, new_trial
from studies.store.others import NoOthers, OtherDrivers

QUICKSTART = SearchSpace.load("quickstart")


@pytest.fixture
def storage() -> BaseStorage:
    made = InMemoryStorage()
    made.create_new_study([StudyDirection.MINIMIZE] * 2, "s")
    return made


@pytest.fixture(autouse=True)
def no_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "BEAT_S", 1000.0)  # the tests look by themselves


@contextmanager
def joined(storage: BaseStorage) -> Iterator[OtherDrivers]:
    others = OtherDrivers(storage, 0, "here")
    try:
        yield others
    finally:
        others.leave()


def begin(storage: BaseStorage, owner: str | None) -> int:
    trial = new_trial(ORIGINAL.resized(64), None, QUICKSTART, "original", 0, owner)
    return storage.create_new_trial(0, trial)


def tell_of(storage: BaseStorage, name: str, driver: Driver) -> None:
    storage.set_study_system_attr(0, f"driver:{name}", vars(driver))


def far(beat: int = 0) -> Driver:
    return Driver("far", "another machine", 1, 0.0, beat)


def test_a_trial_of_a_driver_that_lives_is_left_alone(storage: BaseStorage) -> None:
    tell_of(storage, "x", far())
    begin(storage, "x")
    with joined(storage) as others:
        news, orphans = others.poll({})
        assert [trial.reference for trial in news] == ["original"]
        assert orphans == []
        assert others.poll({0: "running"}) == ([], [])


def test_a_trial_of_a_driver_that_said_goodbye_is_taken_over_once(storage: BaseStorage) -> None:
    with joined(storage) as first:
        trial = begin(storage, first.me)
    with joined(storage) as second, joined(storage) as third:
        assert len(second.poll({0: "running"})[1]) == 1
        assert third.poll({0: "running"})[1] == []
        assert second.own(storage.get_trial(trial))
        assert not third.own(storage.get_trial(trial))
        found = second.mine(ORIGINAL.resized(64).digest)
        assert found is not None
        assert found._trial_id == trial


def test_a_driver_whose_process_has_ended_is_gone_at_once(storage: BaseStorage) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        here = Driver.here()
        tell_of(storage, "x", replace(here, pid=process.pid, started=time.time()))
        with joined(storage) as others:
            begin(storage, "x")
            assert others.poll({0: "running"})[1] == []
            process.kill()
            process.wait()
            assert len(others.poll({0: "running"})[1]) == 1


def test_a_clock_that_is_set_does_not_end_a_driver(
    storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_of(storage, "x", Driver.here())
    begin(storage, "x")
    with joined(storage) as others:
        began = psutil.Process.create_time
        for shift_s in (-7200.0, 7200.0):  # the boot, and so each start, moves with the clock
            monkeypatch.setattr(psutil.Process, "create_time", lambda p, s=shift_s: began(p) + s)
            monkeypatch.setattr(time, "time", lambda s=shift_s: time.monotonic() + s)
            assert others.poll({0: "running"})[1] == []


@pytest.mark.parametrize("old", [True, False], ids=["since 1970", "since the boot"])
def test_a_driver_of_an_earlier_version_is_known_by_its_start(
    storage: BaseStorage, old: bool
) -> None:
    here = Driver.here()
    assert here.started < 1e9
    start = psutil.Process().create_time() if old else here.started
    assert not replace(here, started=start).has_ended
    assert replace(here, started=start - 60).has_ended


def test_a_process_number_used_again_is_not_the_driver(storage: BaseStorage) -> None:
    tell_of(storage, "x", replace(Driver.here(), started=1.0))
    begin(storage, "x")
    with joined(storage) as others:
        assert len(others.poll({0: "running"})[1]) == 1


def test_a_driver_far_away_is_gone_after_it_stood_still_at_so_many_looks(
    storage: BaseStorage,
) -> None:
    tell_of(storage, "still", far())
    seen = Drivers(storage, 0)
    for look in range(LOOKS + 1):
        assert "still" in seen.alive()
        tell_of(storage, "moves", far(beat=look))
        seen._look(seen._all())
    assert seen.alive() == {"moves", seen.name}
    tell_of(storage, "still", far(beat=1))  # it was stopped, and goes on
    seen._look(seen._all())
    assert "still" in seen.alive()
    seen.leave()


@pytest.mark.parametrize("entry", [None, [], {"host": "x"}, {**vars(far()), "pid": "one"}])
def test_a_driver_with_a_damaged_entry_is_gone(storage: BaseStorage, entry: Any) -> None:
    storage.set_study_system_attr(0, "driver:x", entry)
    begin(storage, "x")
    with joined(storage) as others:
        assert others.alive() == {others.me}
        assert [trial.reference for trial in others.poll({})[1]] == ["original"]


def test_a_trial_without_an_owner_is_anybodys(storage: BaseStorage) -> None:
    trial = begin(storage, None)
    with joined(storage) as others:
        assert len(others.poll({0: "running"})[1]) == 1
        assert storage.get_trial(trial).user_attrs[OWNER] == others.me


def test_a_task_is_claimed_by_one_and_free_when_it_is_gone(storage: BaseStorage) -> None:
    with joined(storage) as first, joined(storage) as second:
        with first.claimed("measuring"):
            assert not second._claim("measuring")
            assert first._claim("measuring")
        assert second._claim("measuring")
    with joined(storage) as third:
        assert third._claim("measuring")


def test_alone_there_is_nobody_to_hear_or_to_wait_for() -> None:
    alone = NoOthers()
    assert alone.me is None
    assert alone.poll({}) == ([], [])
    assert not alone.wait()
    with alone.claimed("measuring"):
        assert alone.exclusively(lambda: alone.exclusively(lambda: 7)) == 7


def test_locks_by_name_exclude_each_other(storage: BaseStorage) -> None:
    inside, most = 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        turn = NameLock(storage, "s (turn)")
        for _ in range(5):
            with turn():
                with counting:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with counting:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert [study.study_name for study in storage.get_all_studies()] == ["s"]


def test_a_lock_that_outlives_its_holder_is_deleted_by_a_waiting_driver(
    storage: BaseStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE_S", 0.1)
    dead = NameLock(storage, "s (turn)")
    held = dead._take()
    with NameLock(storage, "s (turn)")():
        dead._delete(held)  # it wakes up: it must not release the lock of another driver
        assert dead._holder() is not None
    assert dead._holder() is None


def _away() -> StorageInternalError:
    error = StorageInternalError("commit")
    error.__cause__ = OperationalError("SELECT 1", {}, Exception("connection refused"))
    return error


def test_an_unavailable_storage_is_retried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.001)
    answers = [_away(), _away(), None]

    def action() -> str:
        if error := answers.pop(0):
            raise error
        return "done"

    assert retrying(action, "postgresql://u@h/d") == "done"
    printed = capsys.readouterr().err
    assert printed.count("postgresql://u@h/d does not answer (connection refused)") == 1


def test_patience_ends_in_one_line_that_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.01)
    monkeypatch.setattr(patience, "FIRST_S", 0.005)

    def action() -> None:
        raise _away()

    with pytest.raises(UserError, match=r"no answer for .*connection refused.*resumes the study"):
        retrying(action, "postgresql://u@h/d")


def test_a_refused_request_is_not_retried() -> None:
    calls = []

    def action() -> None:
        calls.append(1)
        raise DataError("INSERT", {}, Exception("value too long"))

    with pytest.raises(DataError):
        retrying(action, "here")
    assert len(calls) == 1


@pytest.mark.parametrize(
    "text", ["database disk image is malformed", "disk I/O error", "disk full"]
)
def test_a_database_in_a_file_is_waited_for_only_while_it_is_locked(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    errors = [OperationalError("", None, sqlite3.OperationalError("database is locked"))]
    assert retrying(lambda: raise_first(errors), "x.db") == "done"
    errors = [OperationalError("", None, sqlite3.OperationalError(text))]
    with pytest.raises(UserError, match=rf"x\.db: cannot be used \({text}\); restore"):
        retrying(lambda: raise_first(errors), "x.db")


def raise_first(errors: list[OperationalError]) -> str:
    if errors:
        raise errors.pop()
    return "done"


def test_optuna_takes_our_trial_as_one_of_its_own() -> None:
    space, rng = QUICKSTART, np.random.default_rng(0)
    assignment = space.sample(rng)
    study = optuna.create_study(directions=["minimize"] * 2)
    study.add_trial(new_trial(space.architecture(assignment), assignment, space, None, 0, "me"))
    (trial,) = study.trials
    assert space.suggest(optuna.trial.FixedTrial(trial.params)) == assignment
