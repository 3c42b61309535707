"""A journal of studies: read quickly and checked line by line, appended to, and repaired.

Parameters are left out when a journal is read: records take architectures from attributes, and the
parameters are five sixths of a journal. With them a replay takes three times as long.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Generator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._storage import JournalOperation

from search_spaces.errors import UserError
from search_spaces.visible import visible
from studies.storage.entries import CREATED_BY, check_entry

HEAD = b'{"op_code":'
"""The bytes with which every line of a journal begins."""

_FROM, _TO = b'"distributions":{', b',"user_attrs":{'
"""Bytes before and after a new trial's parameters. They cannot occur in a JSON string, where `"`
is escaped."""

_PARAMETERS = ("distributions", "params")


class Journal(JournalFileBackend):
    """A journal in a file, each line of which is checked before Optuna applies it.

    Args:
        path: The file; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), JournalFileOpenLock(str(path)))
        self._path, self._position, self._line = path, 0, 0
        self._created: Counter[str] = Counter()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the logs since the last call; `log_number_from` is the same position and is unused.

        As in Optuna, an incomplete last line is left for the next call.

        Raises:
            UserError: a line is damaged; the message has its number.
        """
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                entry = self._checked(line)
                self._position, self._line = self._position + len(line), self._line + 1
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries; remove what a full disk leaves of an incomplete one.

        Raises:
            OSError: the entries cannot be written.
        """
        before = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError:
            if not _ends_whole(self._path):
                os.truncate(self._path, before)
            raise

    def _checked(self, line: bytes) -> dict[str, Any]:
        try:
            entry = json.loads(_without_parameters(line))
            check_entry(entry)
            self._require_created(entry)
        except (ValueError, OverflowError, RecursionError) as error:
            raise self._damage(_reason(error)) from None
        self._created[CREATED_BY.get(entry["op_code"], "")] += 1
        if entry["op_code"] == JournalOperation.SET_TRIAL_PARAM:
            return {**entry, "op_code": JournalOperation.DISCARD_TRIALS}  # which does nothing
        return {key: value for key, value in entry.items() if key not in _PARAMETERS}

    def _require_created(self, entry: Mapping[str, Any]) -> None:
        """Refuse an entry of a study or trial that no line before has created."""
        for key in CREATED_BY.values():
            if entry.get(key, -1) >= self._created[key]:
                raise ValueError(f"{key} {str(entry[key])[:20]} is not created in a line before")

    def _damage(self, reason: str) -> UserError:
        before = f"keep only the {self._line} lines before it" if self._line else "remove it"
        return UserError(
            f"{self._path}: damaged in line {self._line + 1} ({reason}); nothing was changed: "
            f"restore the file from a copy, or {before}"
        )


def mend_journal(path: Path) -> None:
    """Repair a journal after its process was killed.

    Move an incomplete last line, which would damage the next one, to a file beside the journal, and
    remove Optuna's own lock file, for which Optuna would wait half a minute. Only the process that
    holds the storage may call this, after it has read the journal.

    Raises:
        UserError: the name of Optuna's lock file is that of another file.
    """
    if not path.exists():
        return
    _remove_lock(Path(f"{path}.lock"))
    with path.open("rb+") as file:
        content = file.read()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            kept = _keep(path, content[complete:])
            file.truncate(complete)
            os.fsync(file.fileno())
            said = f"{path}: the last line was incomplete and was moved to {kept.name}"
            print(visible(said), file=sys.stderr)


def _remove_lock(lock: Path) -> None:
    if lock.is_symlink() or (lock.is_file() and not lock.stat().st_size):
        lock.unlink()
    elif lock.exists():
        raise UserError(f"{lock}: this name is for the journal's lock, not for a file; move it")


def _keep(path: Path, cut: bytes) -> Path:
    for number in count(1):
        kept = Path(f"{path}.cut-{number}")
        try:
            with kept.open("xb") as file:  # never an existing file
                file.write(cut)
                os.fsync(file.fileno())
        except FileExistsError:
            continue
        return kept
    raise AssertionError("unreachable")


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _without_parameters(line: bytes) -> bytes:
    start = line.find(_FROM)
    end = line.find(_TO, start)
    return line if start < 0 or end < 0 else line[:start] + line[end + 1 :]


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error).split(";")[0][:80] or type(error).__name__
