"""Write tables as CSV, JSON and Parquet with the same values in each.

Numbers keep all their digits, and whole numbers stay whole where rows lack them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiling.files import behind_links, write_whole
from search_spaces.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("csv", "parquet", "json")

STDOUT = Path("-")
"""The path that stands for standard output."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_INT64 = 2**63


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a table with one column per key, missing values where a row lacks the key.

    Columns of whole numbers and of truth values are nullable (`Int64`, `boolean`), which keeps 8
    from becoming 8.0. Columns of different types become texts.
    """
    import pandas as pd

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    return pd.DataFrame(columns, columns=names, index=range(len(rows)))


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(v is None or -_INT64 <= v < _INT64 for v in values):
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series(values, dtype="float64")
    return pd.Series([v if v is None else str(v) for v in values], dtype="object")


def write_table(table: pd.DataFrame, path: Path, kind: str) -> None:
    """Write a table; `kind` is csv, parquet or json (a list of objects).

    A file is written atomically, a link is followed, a device such as /dev/stdout stays one. The
    path `-` is standard output.

    Raises:
        UserError: the file cannot be written; an existing file is unchanged.
    """
    content = _content(table, kind)
    if path == STDOUT:
        to_stdout(content)
        return
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            write_whole(behind_links(path), content)
    except OSError as error:
        raise cannot_write("--out", path, error) from None


def to_stdout(content: bytes) -> None:
    """Write to standard output, whatever its encoding is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def cannot_write(option: str, path: Path, error: OSError) -> UserError:
    """Return the refusal of a file that cannot be written, with its reason and the remedy."""
    if isinstance(error, FileNotFoundError) and not path.parent.exists():
        return UserError(
            f"{option} {path}: cannot be written (there is no folder {path.parent}); create it, or "
            "give another path"
        )
    taken = isinstance(error, FileExistsError)
    reason = "there is a file of that name" if taken else error.strerror or error
    return UserError(f"{option} {path}: cannot be written ({reason}); give another path")


def csv_text(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV that a spreadsheet does not run.

    A text that a spreadsheet would take for a formula, because it starts with `=`, `+`, `-`, `@`,
    a tab or a line break, gets an apostrophe in front (OWASP, CSV Injection). Numbers are written
    as they are; missing values are empty.
    """
    lines = [[_defused(cell) for cell in row] for row in (names, *rows)]
    # Before Python 3.13 the writer does not quote a text on its own account if it holds "\r".
    returns = any("\r" in cell for line in lines for cell in line if isinstance(cell, str))
    file = io.StringIO()
    if returns:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerows(lines)
    else:
        csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _defused(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _content(table: pd.DataFrame, kind: str) -> bytes:
    if kind == "parquet":
        file = io.BytesIO()
        table.to_parquet(file, index=False)
        return file.getvalue()
    if kind == "csv":
        return csv_text(table.columns, _rows(table)).encode()
    rows = [dict(zip(table.columns, row, strict=True)) for row in _rows(table)]
    finite = [{name: _finite(value) for name, value in row.items()} for row in rows]
    return (json.dumps(finite, indent=1) + "\n").encode()


def _rows(table: pd.DataFrame) -> Iterable[tuple[Any, ...]]:
    """Return the rows as Python values, None where a value is missing."""
    return table.astype(object).where(table.notna(), None).itertuples(index=False, name=None)


def _finite(value: Any) -> Any:
    """Return None for a number that JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
