"""Addresses of storages: passwords are hidden in every position."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from studies.storage.addresses import JOURNAL, absolute, masked, portable, shared, without_password
from studies.storage.opening import open_storage

SECRETS = [
    "postgresql://nas:hush@host/db",
    "postgresql+psycopg://nas:hush@host:5432/db?sslmode=require",
    "postgresql://nas:hush@hush@host/db",
    "postgresql://nas:hush/hush@host/db",
    "postgresql://nas@host/db?password=hush",
    "postgresql://nas@host/db?sslmode=require&password=hush&connect_timeout=3",
    "postgresql://:hush@host/db",
]


@pytest.mark.parametrize("address", SECRETS)
def test_no_password_is_shown_or_written_down(address: str) -> None:
    assert "hush" not in masked(f"could not connect to {address}: no such host")
    assert "hush" not in without_password(address)
    assert "hush" not in portable(absolute(address, Path()), Path())


def test_what_is_no_password_stays() -> None:
    plain = "postgresql+psycopg://nas@host:5432/db?sslmode=require"
    assert masked(plain) == without_password(plain) == plain
    assert masked("--limit params=1e6 a@b: c") == "--limit params=1e6 a@b: c"
    assert (
        without_password("postgresql://nas:hush@host/db?password=hush&sslmode=require")
        == "postgresql://nas@host/db?sslmode=require"
    )


def test_every_way_to_say_postgresql_means_psycopg_3() -> None:
    forms = ("postgres://h/d", "postgresql://h/d", "postgresql+psycopg://h/d")
    assert {absolute(address, Path()) for address in forms} == {"postgresql+psycopg://h/d"}


@pytest.mark.parametrize(
    ("address", "several"),
    [(JOURNAL, False), ("sqlite:///x.db", False), ("postgresql://h/d", True), ("grpc://h:1", True)],
)
def test_several_drivers_need_a_database(address: str, several: bool) -> None:
    assert shared(absolute(address, Path())) == several


@pytest.mark.parametrize("reading", [False, True])
def test_a_missing_driver_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    address = absolute("postgresql://nas:hush@host/db", Path())
    message = r"psycopg is missing; pip install .vae-nas\[postgres\]"
    with pytest.raises(UserError, match=message) as raised:
        open_storage(address, reading=reading)
    assert "hush" not in str(raised.value)
