"""Addresses of storages: their absolute and stored forms, and how passwords are hidden."""

from __future__ import annotations

import re
from pathlib import Path

JOURNAL = "journal:journal.log"
"""The address of the journal in the study's own folder; it stays valid if the folder moves."""

FORMS = "give journal:PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT"

_FILES = ("journal:", "sqlite:///")
_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+psycopg://")
# Greedy, so that a password with an @ in it (which should be written %40) is hidden completely.
_USERINFO = re.compile(r"(://[^:/@\s]*):[^\s]*@")
_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s]*", re.IGNORECASE)


def absolute(address: str | None, folder: Path) -> str:
    """Return the absolute form of an address.

    None and `JOURNAL` stand for the journal in `folder`; other paths are relative to the working
    folder.
    """
    if address in (None, JOURNAL):
        return f"journal:{(folder / 'journal.log').absolute()}"
    assert address is not None
    for scheme in _FILES:
        if address.startswith(scheme):
            return f"{scheme}{Path(address.removeprefix(scheme)).absolute()}"
    for scheme in _POSTGRESQL:  # SQLAlchemy has several drivers; we install psycopg 3
        if address.startswith(scheme):
            return f"postgresql+psycopg://{address.removeprefix(scheme)}"
    return address


def portable(address: str, folder: Path) -> str:
    """Return the address to store: `JOURNAL` for the journal of `folder`, never a password."""
    return JOURNAL if address == absolute(None, folder) else without_password(address)


def masked(text: str) -> str:
    """Return an address, or a text that contains addresses, with passwords replaced by `***`."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def without_password(address: str) -> str:
    """Return an address without its password, as it is stored."""
    bare = re.sub(r"(?:ssl)?password=[^&]*&?", "", _USERINFO.sub(r"\1@", address))
    return bare.rstrip("?&")


def file_of(address: str) -> Path | None:
    """Return the file of an absolute address; None if the address names no file."""
    for scheme in _FILES:
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme))
    return None


def shared(address: str) -> bool:
    """Return whether several drivers can work on one study at this address at the same time."""
    return file_of(address) is None
