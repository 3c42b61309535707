"""Addresses of storages: their absolute and stored forms, and how passwords are hidden.

An address is taken apart by SQLAlchemy's own parser. One that the parser cannot take apart is
refused and never shown, because it is not known which part of it is a password.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import UserError

if TYPE_CHECKING:  # a journal needs no SQLAlchemy, whose import takes long
    from sqlalchemy import URL

JOURNAL = "journal:journal.log"
"""The address of the journal in the study's own folder; it stays valid if the folder moves."""

FORMS = "give journal:PATH, postgresql://USER@HOST/DATABASE or grpc://HOST:PORT"

_PASSWORDS = re.compile(r"pass(?!file)|pwd|secret|token|scram", re.IGNORECASE)
"""Settings of libpq with such names are secret, except `passfile`, which is a path."""

# In a text that contains an address, more than the password may be hidden, never less: all up to
# the last @, and all after a colon that no port follows.
_USERINFO = re.compile(r"(?<!sqlite:)(?<!file:)(//[^:@\[]*):.*@", re.DOTALL)
_NO_PORT = re.compile(r"(?<!sqlite:)(//[^:/@\[\s]*):(?!\*\*\*@|\d+(?!\w)|\s).*", re.DOTALL)
_QUERY = re.compile(rf"([?&][^=&]*(?:{_PASSWORDS.pattern}|%)[^=&]*=)[^&]*", re.IGNORECASE)


def absolute(address: str | None, folder: Path) -> str:
    """Return the absolute form of an address.

    None and `JOURNAL` stand for the journal in `folder`; other paths are relative to the working
    folder.

    Raises:
        UserError: it is no address of a storage, or of one in memory.
    """
    if address in (None, JOURNAL):
        return f"journal:{(folder / 'journal.log').absolute()}"
    assert address is not None
    if not address.isprintable():
        raise UserError(f"storage: the address has characters that cannot be printed; {FORMS}")
    if address.startswith("journal:") and len(address) > len("journal:"):
        return f"journal:{Path(address.removeprefix('journal:')).absolute()}"
    url = _taken_apart(address)
    if url is None:
        raise UserError(
            f"storage {shown(address)}: not an address, or special characters are not written as "
            f"%XX (%40 for @); {FORMS}"
        )
    if url.drivername.startswith("sqlite"):
        return _absolute_file(url)
    if url.drivername in ("postgresql", "postgres"):  # of several drivers we install psycopg 3
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def _absolute_file(url: URL) -> str:
    path = url.database or ""
    if path in ("", ":memory:"):
        raise UserError(
            "storage sqlite://: a database in memory is lost at the end; give sqlite:///PATH"
        )
    if path.startswith("file:") or url.host or url.username is not None or url.query:
        raise UserError("storage sqlite: give sqlite:///PATH without a host or settings")
    absolute_path = str(Path(path).absolute())
    return url.set(drivername="sqlite", database=absolute_path).render_as_string()


def portable(address: str, folder: Path) -> str:
    """Return the address to store: `JOURNAL` for the journal of `folder`, never a password."""
    return JOURNAL if address == absolute(None, folder) else without_password(address)


def masked(text: str) -> str:
    """Return a text that may contain an address, with everything secret replaced by `***`."""
    return _QUERY.sub(r"\1***", _NO_PORT.sub(r"\1:***", _USERINFO.sub(r"\1:***@", text)))


def shown(address: str) -> str:
    """Return an address for messages, with its password replaced by `***`.

    Of an address that cannot be taken apart only the scheme is shown.
    """
    if address.startswith("journal:"):
        return address
    url = _taken_apart(address)
    if url is None:
        scheme = re.match(r"[a-z+0-9]{1,20}(?=:)", address)
        return f"{scheme[0]}:***" if scheme else "***"
    if url.drivername.startswith("sqlite"):
        return f"sqlite:///{url.database or ''}"
    return _without_secrets(url).set(password=url.password).render_as_string()


def without_password(address: str) -> str:
    """Return an address without its password, as it is stored and compared."""
    url = None if address.startswith("journal:") else _taken_apart(address)
    if url is None:
        return shown(address)
    return _without_secrets(url).render_as_string(hide_password=False)


def _without_secrets(url: URL) -> URL:
    from sqlalchemy import URL

    query = {key: value for key, value in url.query.items() if not _PASSWORDS.search(key)}
    return URL.create(
        url.drivername, url.username, None, url.host, url.port, url.database, query
    )  # `URL.set` has no way to remove the password


def _taken_apart(address: str) -> URL | None:
    """Return the parts of an address; None if the parser cannot be trusted to have found them."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return None
    if url.drivername.startswith("sqlite"):
        return url
    # An @ that is left belongs to a password with an @ or a / that is not written as %XX.
    return None if "@" in f"{url.host}{url.database}" else url


def file_of(address: str) -> Path | None:
    """Return the file of an absolute address; None if the address names no file."""
    if address.startswith("journal:"):
        return Path(address.removeprefix("journal:"))
    if not address.startswith("sqlite:"):
        return None
    url = _taken_apart(address)
    assert url is not None
    return Path(url.database or "")


def shared(address: str) -> bool:
    """Return whether several drivers can work on one study at this address at the same time."""
    return file_of(address) is None
