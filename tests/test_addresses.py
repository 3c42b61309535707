"""Addresses of storages: passwords are hidden in every position."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from search_spaces.errors import UserError
from studies.storage.addresses import (
    JOURNAL,
    absolute,
    file_of,
    masked,
    portable,
    shared,
    shown,
    without_password,
)
from studies.storage.opening import open_storage
from tests.helpers.command import nas

SECRETS = [
    "postgresql://nas:hush@host/db",
    "postgresql+psycopg://nas:hush@host:5432/db?sslmode=require",
    "postgresql://nas:hush/hush@host/db",
    "postgresql://nas:hush hush@host/db",
    "postgresql://nas:hush?#:hush@host/db",
    "postgresql://n as:hush%40hush@host/db",
    "postgresql://nas@host/db?password=hush",
    "postgresql://nas@host/db?password=hu%73h hush",
    "postgresql://nas@host/db?PASSWORD=hush&pass%77ord=hush",
    "postgresql://nas@host/db?sslmode=require&password=hush&connect_timeout=3",
    "postgresql://:hush@host/db",
    "mysql://nas:hush@host/db",
]
UNCLEAR = [
    "postgresql://nas:hush@hush@host/db",
    "postgresql://na/s:hush@host/db",
    "postgresql://nas:hush",
    "postgresql://nas:hush/db",
    "postgresql:/nas:hush@host/db",
    "nas:hush@host/db",
    "hush",
    "",
    "journal:",
]


@pytest.mark.parametrize("address", SECRETS)
def test_no_password_is_shown_or_written_down(address: str) -> None:
    stored = portable(absolute(address, Path()), Path())
    shows = masked(f"could not connect to {address}: no such host"), shown(address)
    for text in (*shows, without_password(address), stored):
        assert "hush" not in text
        assert "hu%73h" not in text
    assert absolute(stored, Path()) == stored


@pytest.mark.parametrize("address", UNCLEAR)
def test_an_address_that_cannot_be_taken_apart_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(UserError, match=r"not an address.*give journal:PATH") as raised:
        absolute(address, Path())
    assert "hush" not in f"{raised.value}{shown(address)}{without_password(address)}"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "without a host or settings"),
        ("sqlite://host/x.db", "without a host or settings"),
        ("sqlite:///x.db?timeout=1", "without a host or settings"),
        ("journal:a\0b", "cannot be printed"),
        ("journal:a\nb", "cannot be printed"),
    ],
)
def test_what_keeps_nothing_is_no_storage(
    tmp_path: Path, address: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "run", "quickstart", "--root", str(tmp_path), "--storage", address]
    assert nas(*command) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert reason in told[0]
    assert not list(tmp_path.iterdir())


def test_the_file_of_an_address_is_the_one_that_sqlalchemy_opens(tmp_path: Path) -> None:
    path = tmp_path / "a b@c:d%.db"
    address = absolute(f"sqlite+pysqlite:///{path}", Path())
    open_storage(address)
    assert file_of(address) == path
    assert path.exists()
    assert not shared(address)


@pytest.mark.parametrize("password", ["hush", "hush hush", "hush@hush"])
def test_no_password_of_a_store_for_ray_is_shown(
    tmp_path: Path, password: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"s3://nas:{password}@bucket/x"
    command = ["study", "run", "quickstart", "--root", str(tmp_path), "--set"]
    assert nas(*command, f"ray.storage_path={address}") == 2
    told = capsys.readouterr().err
    assert "ray: storage_path: must have no password" in told
    assert "hush" not in told


def test_what_is_no_password_stays() -> None:
    plain = "postgresql+psycopg://nas@host:5432/db?sslmode=require"
    assert masked(plain) == without_password(plain) == plain
    for text in ("--limit params=1e6 a@b: c", "grpc://h:1: no", "grpc://h: no", "http://h:80/x"):
        assert masked(text) == text
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
