"""The file of a storage: what it holds, before anything is written, and its only driver."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from profiling.locks import open_lock, try_lock
from search_spaces.errors import UserError
from studies.storage.addresses import file_of
from studies.storage.journal import HEAD

_SQLITE = b"SQLite format 3\0"
"""The bytes with which an SQLite database begins."""

_LEFT_ALONE = "nothing was changed; restore it from a copy, or give another --storage"


def holds_studies(address: str) -> bool:
    """Return whether the file of an absolute address is a journal or a database of studies.

    The file is only read. False means that there is none, or that a process was killed while it
    created one: then the storage may be created.

    Raises:
        UserError: it is no regular file, it cannot be read, or it holds something else.
    """
    path = file_of(address)
    assert path is not None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path}: is not a file; give another --storage")
        with path.open("rb") as file:
            head = file.read(len(_SQLITE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if address.startswith("journal:"):
        return _is_journal(path, head)
    return bool(head) and _is_database(path, head)


def _is_journal(path: Path, head: bytes) -> bool:
    if head.startswith(HEAD):
        return True
    if HEAD.startswith(head):  # a killed process has written less than the first line
        return False
    raise UserError(f"{path}: not a journal of studies, or damaged in line 1; {_LEFT_ALONE}")


def _is_database(path: Path, head: bytes) -> bool:
    from optuna.storages._rdb.models import BaseModel

    ours = {*BaseModel.metadata.tables, "alembic_version"}
    tables = _tables(path) if head == _SQLITE else None
    if tables is None or not (tables <= ours or tables >= ours):
        raise UserError(f"{path}: not a database of studies, or damaged; {_LEFT_ALONE}")
    return tables >= ours


def _tables(path: Path) -> set[str] | None:
    """Return the tables of an SQLite database; None if it is damaged.

    With `immutable` SQLite writes nothing, not even files beside the database.
    """
    where = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    try:
        with closing(sqlite3.connect(where, uri=True)) as database:
            names = {str(name) for (name,) in database.execute(query)}
    except sqlite3.Error:
        return None
    return {name for name in names if not name.startswith("sqlite_")}  # SQLite's own


@contextmanager
def only_driver(path: Path) -> Iterator[None]:
    """Hold the lock of a storage in a file, whatever name or link leads to it.

    Raises:
        UserError: another process holds it, or the file has several hard links.
        ProfilingError: the lock file cannot be used.
        OSError: the lock file cannot be written.
    """
    real = path.resolve()
    if real.exists() and real.stat().st_nlink > 1:
        raise UserError(
            f"{path}: has hard links, and drivers that use another one would not be noticed; "
            f"copy it to another name and give that one, or remove the links"
        )
    with _locked(lock_of(real), path) as file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_of(path: Path) -> Path:
    """Return the path of the lock of a storage in a file."""
    return Path(f"{path.resolve()}.driver")


def _locked(lock: Path, path: Path) -> IO[str]:
    """Return the open lock file; a driver that could not begin its study may just remove it."""
    while True:
        file = open_lock(lock)
        if not try_lock(file):
            holder = _holder(file)
            file.close()
            raise UserError(
                f"{path}: a study in it is being run by {holder}, and a file has one "
                "driver: wait for it, stop it, give this run another --name or --storage, or let "
                "several drivers share a PostgreSQL --storage"
            )
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            return file
        file.close()


def _holder(file: IO[str]) -> str:
    """Return a description of the process that holds the lock, from the file's content."""
    try:
        return f"process {file.read(20).strip()}"
    except OSError:  # on Windows no other process can read a locked file
        return "another process"
