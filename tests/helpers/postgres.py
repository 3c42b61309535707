"""A private PostgreSQL server for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.postgres import MISSING, Server, free_port, private_server, programs

__all__ = ["Server", "free_port", "running_server"]


@contextmanager
def running_server() -> Iterator[Server]:
    """Yield a fresh server; skip the test where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")
    if programs() is None:
        pytest.skip(MISSING)
    with private_server() as server:
        yield server
