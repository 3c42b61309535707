"""Addresses of storages: what they mean, how they are written down, and what is never shown."""

from __future__ import annotations

import re
from pathlib import Path

JOURNAL = "journal:journal.log"
"""The address of a study's own journal, in the study's folder wherever that is."""

FORMS = "write journal:PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT"

_FILES = ("journal:", "sqlite:///")
_POSTGRESQL = ("postgresql://", "postgres://", "postgresql+psycopg://")
# Greedy: a password that holds an @ itself (it should be written %40) is hidden to its end.
_USERINFO = re.compile(r"(://[^:/@\s]*):[^\s]*@")
_QUERY = re.compile(r"([?&](?:ssl)?password=)[^&\s]*", re.IGNORECASE)


def absolute(address: str | None, folder: Path) -> str:
    """Return an address that means the same from everywhere.

    None and `JOURNAL` mean the journal in `folder`; other paths are taken from the working folder.
    """
    if address in (None, JOURNAL):
        return f"journal:{(folder / 'journal.log').absolute()}"
    assert address is not None
    for scheme in _FILES:
        if address.startswith(scheme):
            return f"{scheme}{Path(address.removeprefix(scheme)).absolute()}"
    for scheme in _POSTGRESQL:  # of its drivers, we install psycopg 3
        if address.startswith(scheme):
            return f"postgresql+psycopg://{address.removeprefix(scheme)}"
    return address


def portable(address: str, folder: Path) -> str:
    """Return the address to write down: `JOURNAL` for that of `folder`, never a password."""
    return JOURNAL if address == absolute(None, folder) else without_password(address)


def masked(text: str) -> str:
    """Return an address, or a text with addresses in it, without passwords."""
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


def without_password(address: str) -> str:
    """Return an address as it is written down: the password comes from elsewhere."""
    bare = re.sub(r"(?:ssl)?password=[^&]*&?", "", _USERINFO.sub(r"\1@", address))
    return bare.rstrip("?&")


def file_of(address: str) -> Path | None:
    """Return the file that an absolute address names, or None where there is none."""
    for scheme in _FILES:
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme))
    return None


def shared(address: str) -> bool:
    """Whether several drivers may work on one study there at the same time."""
    return file_of(address) is None
