"""Open the storage of trials, and repair it after a crash.

No data from a storage is unpickled: a journal, a database and Optuna's gRPC proxy all hold JSON.
(Optuna's journal supports pickled snapshots, but never for a file.)
"""

from __future__ import annotations

import weakref
from typing import Any

from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, get_storage

from nas.search.samplers import quiet_optuna
from search_spaces.errors import UserError
from studies.storage.addresses import FORMS, file_of, masked, shown
from studies.storage.files import holds_studies
from studies.storage.journal import Journal
from studies.storage.locks import advisory_lock, limit_idle_transactions

CONNECT_S = 10
"""Timeout of a connection to a server, in seconds."""


def open_storage(address: str, *, reading: bool = False) -> BaseStorage:
    """Open a storage by its absolute address.

    With `reading` nothing is created. Trials have no parameters.

    Raises:
        UserError: the storage does not exist, is damaged or holds something else, or its driver
            reports an error.
    """
    path = file_of(address)
    if path and not holds_studies(address) and reading:
        lost = "is empty" if path.exists() else "does not exist"
        raise UserError(f"{path}: the study's storage {lost}; restore it from a copy")
    if address.startswith("journal:"):
        assert path is not None
        return JournalStorage(Journal(path))
    opened = _open_proxy if address.startswith("grpc:") else _open_database
    try:
        with quiet_optuna():
            return opened(address, reading)
    except ImportError as error:
        raise UserError(_missing(address, error)) from None
    except Exception as error:  # any driver's own error: the user has to correct the address
        raise UserError(f"--storage {shown(address)}: {reason_of(error)}; {FORMS}") from None


def reason_of(error: BaseException) -> str:
    """Return the error message of a storage's driver in one line, without passwords."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    cause = getattr(cause, "orig", None) or cause
    details = getattr(cause, "details", None)  # gRPC
    text = str(details() if callable(details) else cause).strip()
    return masked(text.splitlines()[0].strip()) if text else type(cause).__name__


def _open_database(address: str, reading: bool) -> BaseStorage:
    if reading or not address.startswith("postgresql"):
        return _database(address, reading)
    # Only one process at a time can create the tables.
    with advisory_lock(address, "tables", engine_options()):
        return _database(address, reading)


def _database(address: str, reading: bool) -> BaseStorage:
    # Not at the top: it imports SQLAlchemy, which a journal does not need.
    from studies.storage.database import Database

    options = engine_options() if address.startswith("postgresql") else None
    database = Database(address, options, skip_table_creation=reading)
    if options is not None:
        limit_idle_transactions(database.engine)
        database.engine.dispose()  # close the connection made before this
    weakref.finalize(database, database.engine.dispose)
    return get_storage(database)


def engine_options() -> dict[str, Any]:
    """Return SQLAlchemy's options for PostgreSQL. Broken connections are replaced before use."""
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S}}


def _open_proxy(address: str, reading: bool) -> BaseStorage:
    host, colon, port = address.removeprefix("grpc://").rstrip("/").rpartition(":")
    if not (colon and host and port.isdigit()):
        raise ValueError("not an address of a host and a port")
    proxy = GrpcStorageProxy(host=host, port=int(port))
    try:
        proxy.wait_server_ready(timeout=CONNECT_S)
    except ConnectionError:
        raise ConnectionError("no storage server answers at this address") from None
    return proxy


_EXTRAS = {"grpc:": "grpc", "postgres": "postgres"}
"""Beginning of an address -> the extra that it needs."""


def _missing(address: str, error: ImportError) -> str:
    module = error.name or getattr(error.__cause__, "name", None) or "its driver"
    extra = next((one for kind, one in _EXTRAS.items() if address.startswith(kind)), None)
    if extra is None:
        return (
            f"--storage {shown(address)}: {module} is missing; this kind of database was never "
            f"tried: give journal:PATH, sqlite:///PATH, postgresql:DATABASE or grpc:HOST:PORT"
        )
    return f"--storage {shown(address)}: {module} is missing; pip install 'vae-nas[{extra}]'"
