"""Waiting for a storage that is away for a while, such as a database that is restarted."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError

from search_spaces.errors import UserError
from studies.storage.opening import reason_of

PATIENCE_S = 300.0
"""Seconds that a storage may be away before a run ends."""

FIRST_S, LONGEST_S = 0.25, 10.0
"""First and longest pause between two attempts."""

Result = TypeVar("Result")


def patiently(action: Callable[[], Result], where: str) -> Result:
    """Do something with a storage, again and again while it does not answer.

    Args:
        action: May be done twice: the storage may have done it and could not say so.
        where: The storage's address without its password.

    Raises:
        UserError: it did not answer for `PATIENCE_S`.
    """
    begun, pause = time.monotonic(), FIRST_S
    while True:
        try:
            return action()
        except Exception as error:
            if not is_away(error):
                raise
            gone = time.monotonic() - begun
            if gone + pause > PATIENCE_S:
                raise UserError(
                    f"{where}: no answer for {gone:.0f} s ({reason_of(error)}); what is finished "
                    "is recorded, and the same command goes on from there"
                ) from None
            if pause == FIRST_S:
                said = f"{where} does not answer ({reason_of(error)})"
                print(f"{said}: trying again for {PATIENCE_S:g} s", file=sys.stderr)
        time.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(2 * pause, LONGEST_S)


def is_away(error: BaseException) -> bool:
    """Whether an error says that a storage is not there now, rather than that it objects."""
    if isinstance(error, StorageInternalError):
        return error.__cause__ is not None and is_away(error.__cause__)
    module = type(error).__module__
    if module.startswith("sqlalchemy"):
        from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost or isinstance(error, OperationalError | InterfaceError)
    if module.startswith("grpc"):
        import grpc

        return isinstance(error, grpc.RpcError) and error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNKNOWN,  # the proxy's own database is away
        )
    return False
