"""One driver at a time decides: what to evaluate next, and whose a trial is.

Within a turn a driver reads what the others did, decides and writes it down; nobody else decides
meanwhile. So a network is begun once, a study gets as many trials as it was asked for, and a trial
of a dead driver is taken over once. Optuna's own means do not suffice: `set_trial_state_values`
compares before it swaps from WAITING to RUNNING alone, and two drivers that both found a trial's
owner dead could put it back to WAITING one after the other, and both run it.

PostgreSQL gives an advisory lock, which it frees when its holder's connection ends. Through
Optuna's gRPC proxy there is no SQL, but names of studies are unique there too: a study of a certain
name is the lock, made to take it and deleted to free it.
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
"""Seconds after which a turn or a transaction is over whose holder does not move; both take
milliseconds."""

Turn = Callable[[], AbstractContextManager[None]]
"""Waits for one's turn, and ends it. Not for a thread that has it already."""


def make_turn(address: str, study: str, storage: BaseStorage, options: Mapping[str, Any]) -> Turn:
    """Return the turns of a study; nobody is waited for where a file has one driver."""
    if address.startswith(("journal:", "sqlite:")):
        return nullcontext
    if address.startswith("postgresql"):
        return AdvisoryTurn(address, f"study {study}", options)
    return NamedTurn(storage, f"{study} (turn)")


class AdvisoryTurn:
    """Turns by an advisory lock of PostgreSQL, on a connection of its own.

    A holder that hangs, or whose host is gone, loses the connection and the lock after `STALE_S`.
    """

    def __init__(self, address: str, name: str, options: Mapping[str, Any]) -> None:
        from sqlalchemy import create_engine

        self._engine = create_engine(address, pool_size=1, **options)
        free_what_is_held(self._engine)
        weakref.finalize(self, self._engine.dispose)
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the lock; what ends it early raises SQLAlchemy's `OperationalError`."""
        from sqlalchemy import text

        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._key})
            yield


def free_what_is_held(engine: Engine) -> None:
    """Let PostgreSQL end a connection of this engine that is still for `STALE_S` in a transaction.

    A process may be stopped, or its host put to sleep, between two statements. What its transaction
    holds, the others would wait for until it moves again.
    """
    from sqlalchemy import event

    def limit(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{STALE_S:g}s'")
        connection.commit()

    event.listen(engine, "connect", limit)


@contextmanager
def advisory_lock(address: str, name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Hold one advisory lock of a PostgreSQL database once."""
    with AdvisoryTurn(address, name, options)():
        yield


class NamedTurn:
    """Turns by a study's unique name. One that outlives its holder is deleted by who watched it.

    Deleted is the very one that was watched, by its number: never that of another's later turn.
    """

    def __init__(self, storage: BaseStorage, name: str) -> None:
        self._storage, self._name = storage, name

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Hold the name."""
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
        except KeyError:  # it has just been freed
            return None

    def _delete(self, number: int) -> None:
        with suppress(KeyError):  # it had been taken for dead
            self._storage.delete_study(number)
