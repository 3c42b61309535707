"""Where trials are recorded: addresses of Optuna storages, and files that a crash left behind."""

from __future__ import annotations

import json
import re
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from search_spaces.errors import UserError

JOURNAL = "journal:journal.log"
"""The address of a study's own journal, in the study's folder wherever that is."""

_FORMS = "write journal:PATH, sqlite:///PATH or postgresql+psycopg://..."


def absolute(address: str | None, folder: Path) -> str:
    """Return an address that means the same from everywhere.

    None and `JOURNAL` mean the journal in `folder`; other paths are taken from the working folder.
    """
    if address in (None, JOURNAL):
        return f"journal:{(folder / 'journal.log').absolute()}"
    assert address is not None
    for scheme in ("journal:", "sqlite:///"):
        if address.startswith(scheme):
            return f"{scheme}{Path(address.removeprefix(scheme)).absolute()}"
    return address


def portable(address: str, folder: Path) -> str:
    """Return the address to write down: `JOURNAL` if it is the journal of `folder`."""
    return JOURNAL if address == absolute(None, folder) else address


def masked(address: str) -> str:
    """Return the address without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", address)


def open_storage(address: str, *, reading: bool = False) -> BaseStorage:
    """Open a storage by its absolute address; `reading` creates nothing.

    Raises:
        UserError: there is none, it is damaged, or its driver refuses it.
    """
    path = _path(address)
    if reading and path and not path.exists():
        raise UserError(f"{path}: the study's storage is gone")
    if address.startswith("journal:"):
        assert path is not None
        return _open_journal(path)
    try:
        return RDBStorage(address)
    except Exception as error:  # any driver's own error: the user has to act on the address
        reason = masked(str(error).splitlines()[0])
        raise UserError(f"--storage {masked(address)}: {reason}; {_FORMS}") from None


def mend_journal(address: str) -> None:
    """Make a journal that a killed process left behind fit for writing.

    Cuts a last line that was not written to its end, which would spoil the next one, and removes
    Optuna's own lock, on which it would wait for half a minute. Only for the holder of the study.
    """
    path = _path(address) if address.startswith("journal:") else None
    if path is None or not path.exists():
        return
    Path(f"{path}.lock").unlink(missing_ok=True)
    with path.open("rb+") as file:
        content = file.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            file.truncate(complete)


def _path(address: str) -> Path | None:
    for scheme in ("journal:", "sqlite:///"):
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme))
    return None


def _open_journal(path: Path) -> BaseStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: damaged in line {_bad_line(path)} ({error.msg}); remove that line, or "
            "restore the file from a copy"
        ) from None


def _bad_line(path: Path) -> int:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError:
            return number
    return 0
