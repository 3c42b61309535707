"""Retry while a storage is unavailable, such as a database during a restart."""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError

from search_spaces.errors import UserError
from search_spaces.visible import visible
from studies.storage.opening import reason_of

PATIENCE_S = 300.0
"""Seconds that a storage may be unavailable before a run ends."""

FIRST_S, LONGEST_S = 0.25, 10.0
"""First and longest pause between two attempts, in seconds."""

_Result = TypeVar("_Result")


def retrying(action: Callable[[], _Result], where: str) -> _Result:
    """Call an action on a storage and retry it while the storage does not answer.

    Args:
        action: It may take effect twice: a storage can fail after it has done the action.
        where: The storage's address without its password.

    Raises:
        UserError: the storage did not answer for `PATIENCE_S`, or it is a damaged file.
    """
    begun, pause = time.monotonic(), FIRST_S
    while True:
        try:
            return action()
        except Exception as error:
            if _is_damage(error):
                raise UserError(
                    f"{where}: cannot be used ({reason_of(error)}); restore the file from a copy, "
                    "or make room if the disk is full"
                ) from None
            if not is_away(error):
                raise
            gone = time.monotonic() - begun
            if gone + pause > PATIENCE_S:
                raise UserError(
                    f"{where}: no answer for {gone:.0f} s ({reason_of(error)}); finished trials "
                    "are recorded, and the same command resumes the study"
                ) from None
            if pause == FIRST_S:
                text = f"{where} does not answer ({reason_of(error)})"
                print(visible(f"{text}: retrying for {PATIENCE_S:g} s"), file=sys.stderr)
        time.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(2 * pause, LONGEST_S)


def is_away(error: BaseException) -> bool:
    """Return whether an error means that a storage is unavailable, not that it refused."""
    if isinstance(error, StorageInternalError):
        return error.__cause__ is not None and is_away(error.__cause__)
    module = type(error).__module__
    if module.startswith("sqlalchemy"):
        from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

        if _of_sqlite(error):
            return "locked" in str(error)
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OperationalError | InterfaceError)
    if module.startswith("grpc"):
        import grpc

        return isinstance(error, grpc.RpcError) and error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNKNOWN,  # the proxy's own database is unavailable
        )
    return False


def _is_damage(error: BaseException) -> bool:
    """Return whether an error means that a database in a file cannot be used as it is."""
    if isinstance(error, StorageInternalError) and error.__cause__ is not None:
        return _is_damage(error.__cause__)
    return isinstance(error, json.JSONDecodeError) or (_of_sqlite(error) and not is_away(error))


def _of_sqlite(error: BaseException) -> bool:
    return isinstance(getattr(error, "orig", None), sqlite3.Error)
