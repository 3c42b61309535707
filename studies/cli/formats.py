"""The option `--format` and the output of tables in each format, for every command that lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

format_option = click.option(
    "--format", "kind", type=click.Choice(["table", "csv", "json"]), default="table",
    show_default=True, help="Format of the output.",
)  # fmt: skip
"""The format of what a command prints: a table for people, or rows with all digits."""


def in_place_of_table(kind: str, out: Path | None) -> tuple[str, Path | None]:
    """Return the format that is printed and the file that is written besides.

    With `-` as the file, the rows are printed in place of the table: as CSV, or as `kind` says.
    """
    from studies.record.table_files import STDOUT

    if out == STDOUT:
        return ("csv" if kind == "table" else kind), None
    return kind, out


def show(
    kind: str, rows: pd.DataFrame | Iterable[Mapping[str, Any]], table: Callable[[], object]
) -> None:
    """Print rows as CSV or JSON to standard output; call `table` where the format is a table.

    A cell that is a list or a mapping becomes a text.
    """
    if kind == "table":
        table()
        return
    import pandas as pd

    from studies.record.table_files import STDOUT, table_of, write_table

    found = rows if isinstance(rows, pd.DataFrame) else table_of(list(rows))
    write_table(found, STDOUT, kind)
