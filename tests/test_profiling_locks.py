"""File locks, between open files of one process and between real processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import portalocker
import pytest

from profiling.errors import ProfilingError
from profiling.locks import lock, try_lock, unlock

HOLD = """
import sys, time
from profiling.errors import ProfilingError
from profiling.locks import lock
with open(sys.argv[1], "a") as file:
    lock(file)
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_only_shared_locks_go_together(
    tmp_path: Path, first: bool, second: bool, together: bool
) -> None:
    path = tmp_path / "lock"
    with path.open("a") as one, path.open("a") as other:
        lock(one, shared=first)
        assert try_lock(other, shared=second) is together
        unlock(one)
        assert try_lock(other, shared=second)


def test_an_open_file_may_be_locked_again_and_unlocked_twice(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as one, path.open("a") as other:
        lock(one)
        lock(one)
        unlock(one)
        unlock(one)
        assert try_lock(other)


def test_closing_the_file_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as one:
        lock(one)
    with path.open("a") as other:
        assert try_lock(other)


def test_a_killed_process_keeps_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with (
        path.open("a") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert not try_lock(file)
        holder.kill()
        holder.wait()
        assert try_lock(file)


def test_a_wait_goes_on_where_the_system_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [portalocker.AlreadyLocked("after ten seconds"), None]

    def locked(*_: object) -> None:
        if error := answers.pop(0):
            raise error

    monkeypatch.setattr(portalocker, "lock", locked)
    with (tmp_path / "lock").open("a") as file:
        lock(file)
    assert not answers


def test_a_file_system_without_locks_is_an_error_and_not_a_lock_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise portalocker.LockException(os.strerror(errno.ENOLCK))

    monkeypatch.setattr(portalocker, "lock", refused)
    with (
        (tmp_path / "lock").open("a") as file,
        pytest.raises(ProfilingError, match=r"lock: cannot be locked \(No locks available"),
    ):
        try_lock(file)
