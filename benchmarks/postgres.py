"""A private PostgreSQL server for as long as a benchmark runs, from the programs installed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.postgres import running_server


@contextmanager
def private_postgres() -> Iterator[str]:
    """Yield the address of an empty database that writes to disk as PostgreSQL does by default.

    Commands started meanwhile find the password in their environment.
    """
    before = os.environ.get("PGPASSWORD")
    try:
        with running_server(fsync=True) as server:
            os.environ["PGPASSWORD"] = server.password
            yield server.database()
    except pytest.skip.Exception as lacking:
        raise SystemExit(str(lacking)) from None
    finally:
        os.environ.pop("PGPASSWORD", None)
        if before is not None:
            os.environ["PGPASSWORD"] = before
