"""Locks by which one driver at a time decides what to evaluate next and who owns a trial.

While a driver holds the lock, it reads the other drivers' trials, decides and writes its decision;
no other driver decides meanwhile. So a network is started once, a study gets the requested number
of trials, and a trial of a dead driver is taken over once. Optuna's own methods are not enough:
`set_trial_state_values` compares before it swaps only from WAITING to RUNNING. Two drivers that
both found a trial's owner dead could set it back to WAITING one after the other, and both run it.

PostgreSQL has advisory locks, which it releases when the holder's connection ends. Optuna's gRPC
proxy offers no SQL, but study names are unique there too: a study with a certain name is the lock,
created to acquire it and deleted to release it.
"""

from __future__ import annotations

import hashlib
import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

if TYPE_CHECKING:
    from sqlalchemy import Engine

STALE_S = 30.0
"""Seconds after which a lock or a transaction of an inactive holder ends.

Both normally take milliseconds.
"""

DriverLock = Callable[[], AbstractContextManager[None]]
"""Returns a context manager that acquires and releases the lock. It is not reentrant."""


def driver_lock(
    address: str, study: str, storage: BaseStorage, options: Mapping[str, Any]
) -> DriverLock:
    """Return the lock of a study. A file has one driver, so its lock does nothing."""
    if address.startswith(("journal:", "sqlite:")):
        return nullcontext
    if address.startswith("postgresql"):
        return AdvisoryLock(address, f"study {study}", options)
    return NameLock(storage, f"{study} (turn)")


class AdvisoryLock:
    """An advisory lock of PostgreSQL, on a connection of its own.

    A holder that hangs, or whose host fails, loses the connection and the lock after `STALE_S`.
    """

    def __init__(self, address: str, name: str, options: Mapping[str, Any]) -> None:
        from sqlalchemy import create_engine

        self._engine = create_engine(address, pool_size=1, **options)
        limit_idle_transactions(self._engine)
        weakref.finalize(self, self._engine.dispose)
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock. If the server ends it early, SQLAlchemy's `OperationalError` is raised."""
        from sqlalchemy import text

        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield


def limit_idle_transactions(engine: Engine) -> None:
    """Let PostgreSQL close connections of this engine that are idle in a transaction for `STALE_S`.

    A process can be stopped, or its host suspended, between two statements. Others would wait for
    the locks of its transaction until it continues.
    """
    from sqlalchemy import event

    def limit(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{STALE_S:g}s'")
        connection.commit()

    event.listen(engine, "connect", limit)


@contextmanager
def advisory_lock(address: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Hold an advisory lock of a PostgreSQL database on a temporary connection."""
    with AdvisoryLock(address, name, options)():
        yield


class NameLock:
    """A lock by a study's unique name.

    A waiting driver deletes the study if its holder has kept it for `STALE_S`. It deletes exactly
    the study that it watched, by its number, never the lock of a later holder.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self._storage, self._name = storage, name

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock."""
        number = self._take()
        try:
            yield
        finally:
            self._delete(number)

    def _take(self) -> int:
        watched, since = None, time.monotonic()
        while True:
            with suppress(DuplicatedStudyError):
                return self._storage.create_new_study([StudyDirection.MINIMIZE], self._name)
            holder = self._holder()
            if holder != watched:
                watched, since = holder, time.monotonic()
            elif watched is not None and time.monotonic() - since > STALE_S:
                self._delete(watched)
            time.sleep(random.uniform(0.01, 0.05))

    def _holder(self) -> int | None:
        try:
            return self._storage.get_study_id_from_name(self._name)
        except KeyError:  # it has just been released
            return None

    def _delete(self, number: int) -> None:
        with suppress(KeyError):  # another driver considered this holder dead
            self._storage.delete_study(number)
