"""CSV files that grow by whole lines, so that a measurement which is killed continues."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.latency_summary import Row
from benchmarks.latency_trust import rounded
from benchmarks.vae_table.__main__ import TimeLeft
from profiling.environment import Environment, differences, fingerprint
from search_spaces.errors import UserError

MEASURED = (
    "ratio", "low", "high", "candidate_ms", "reference_ms", "twin_ratio", "rounds", "quiet_rounds",
    "attempts", "others", "contention",
)  # fmt: skip
"""Columns of `benchmarks.latency_trust.row`."""

Job = TypeVar("Job")


class Rows:
    """The rows of a CSV file; a new one is on the disk when `append` returns.

    A process that is killed while it writes leaves an incomplete last line, which is removed when
    the file is opened again.

    Args:
        path: The file; it is made if there is none.
        key: Columns that identify a row. Of rows with equal keys the last one counts.
        columns: The other columns.

    Raises:
        UserError: the file has other columns.
    """

    def __init__(self, path: Path, key: Sequence[str], columns: Sequence[str]) -> None:
        self._path, self.key, self._columns = path, tuple(key), (*key, *columns)
        self._known = {self._key_of(row): row for row in self._read()}

    @property
    def all(self) -> list[Row]:
        """The rows; every value is text."""
        return list(self._known.values())

    def get(self, *key: Any) -> Row | None:
        """Return the row with these values of the key columns, or None."""
        return self._known.get(tuple(map(str, key)))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; columns that it lacks are empty."""
        line = self._line({name: _one_line(row.get(name)) for name in self._columns})
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        text = next(csv.DictReader(io.StringIO(line.decode()), self._columns))
        self._known[self._key_of(text)] = text

    def _key_of(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(row[name] for name in self.key)

    def _read(self) -> list[Row]:
        content = self._path.read_bytes() if self._path.exists() else b""
        header = self._line({name: name for name in self._columns})
        whole = content[: content.rfind(b"\n") + 1] or header
        if whole != content:
            self._path.write_bytes(whole)
        reader = csv.DictReader(io.StringIO(whole.decode(), newline=""))
        if tuple(reader.fieldnames or ()) != self._columns:
            raise UserError(f"{self._path}: has other columns than this command writes; move it")
        return list(reader)

    def _line(self, row: Row) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, lineterminator="\n").writerow(rounded(row))
        return text.getvalue().encode()


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


def fill(
    rows: Rows,
    jobs: Iterable[tuple[tuple[Hashable, ...], Job]],
    measure: Callable[[Job], Mapping[str, Any]],
    word: str,
    *,
    again: bool = False,
) -> None:
    """Measure what is missing, row by row, and print the progress.

    Args:
        rows: The file.
        jobs: The key of each row, and what to measure for it.
        measure: Returns the other columns of the row.
        word: What is counted in the lines of progress.
        again: Also repeat measurements that were contended or have failed.
    """
    wanted, progress = list(jobs), TimeLeft(word)
    for done, (key, job) in enumerate(wanted, start=1):
        known = rows.get(*key)
        if known is None or (again and (known.get("contention") or known.get("failure"))):
            columns = dict(zip(rows.key, key, strict=True))
            rows.append({**columns, **measure(job)})
            progress(done, len(wanted))


def require_same_environment(folder: Path) -> None:
    """Record the environment in a folder, or check that it is the one of the rows in there.

    Raises:
        UserError: the rows were measured in another environment.
    """
    path, here = folder / "environment.json", fingerprint()
    if not path.exists():
        path.write_text(here.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return
    known = Environment.model_validate_json(path.read_text(encoding="utf-8"))
    if found := differences(known, here):
        raise UserError(
            f"{path}: the rows there are of another environment ({'; '.join(found)}): choose "
            "another --out"
        )
