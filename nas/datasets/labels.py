"""Attributes of pictures, from their class folders or from a CSV file."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nas.datasets.dataset import DataConfig, ImageIndices
from nas.datasets.reading import printable
from search_spaces.errors import UserError, nearest, quoted

_MOST = 100
"""Largest number of values of a column, or of class folders, that become attributes."""
_TRUE, _FALSE = {"1", "true", "yes"}, {"0", "-1", "false", "no"}


@dataclass(frozen=True)
class Labels:
    """Attributes of pictures.

    Attributes:
        names: Names of the attributes.
        values: bool, `(pictures, names)`; None if there are none.
    """

    names: tuple[str, ...] = ()
    values: NDArray[np.bool_] | None = None

    def of(self, rows: ImageIndices) -> NDArray[np.bool_] | None:
        """Return the values of some pictures."""
        return None if self.values is None else self.values[rows]


NO_LABELS = Labels()


class Table:
    """The rows of a CSV file that belong to pictures; the first column has their names."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Read the file.

        Args:
            path: The file.
            names: Names of the pictures; a row has the same name, or else the longest common end.

        Raises:
            UserError: it cannot be read, or has no row for a picture, or several.
        """
        self.path = path
        self.header, rows = _rows(path)
        alike = defaultdict[str, list[str]](list)
        for key in rows:
            alike[PurePosixPath(key).name].append(key)
        keys = [name if name in rows else _nearest_row(path, name, alike) for name in names]
        self.rows = [rows[key] for key in keys if key is not None]
        _refuse_shared_rows(path, names, keys)
        missing = [name for name, key in zip(names, keys, strict=True) if key is None]
        if missing:
            raise UserError(
                f"{path}: {len(missing):,} of {len(names):,} images have no row, first "
                f"{printable(missing[0])}; its rows name {len(rows):,} files, first "
                f"{quoted(next(iter(rows), ''))}: give the file of these images"
            )

    def column(self, name: str) -> list[str]:
        """Return the values of a column for each picture.

        Raises:
            UserError: there is no such column.
        """
        if name not in self.header:
            raise UserError(
                f"data.group_column: {self.path} has no column {quoted(name)}; it has "
                f"{', '.join(self.header)}{nearest(name, self.header)}"
            )
        place = self.header.index(name)
        return [row[place] for row in self.rows]

    def labels(self) -> Labels:
        """Return the columns as attributes: of true and false, or one for each of few values."""
        columns = {name: self.column(name) for name in self.header}
        return _joined(
            [part for name, texts in columns.items() for part in _attributes(name, texts)]
        )


def class_labels(classes: Sequence[str]) -> Labels:
    """Return one attribute for each class folder, if there are 2 to 100."""
    names = sorted(set(classes))
    if not 2 <= len(names) <= _MOST:
        return NO_LABELS
    return _joined([(name or "no folder", [one == name for one in classes]) for name in names])


def groups_of(
    config: DataConfig, names: Sequence[str], table: Table | None
) -> tuple[list[str], str] | None:
    """Return the group of each picture and what states it; None without groups.

    Raises:
        UserError: the pattern does not fit a name, or the column does not exist.
    """
    if config.group_column is not None and table is not None:
        return table.column(config.group_column), f"column {config.group_column}"
    if config.group is None:
        return None
    groups = []
    for name in names:
        found = re.search(config.group, name)
        if found is None:
            raise UserError(f"data.group: {quoted(config.group)} does not fit {printable(name)!r}")
        groups.append(found[1] or "" if found.re.groups else found[0])
    return groups, f"group {quoted(config.group)}"


def _attributes(name: str, texts: Sequence[str]) -> list[tuple[str, list[bool]]]:
    lowered = [text.strip().lower() for text in texts]
    values = sorted(set(texts))
    if set(lowered) <= _TRUE | _FALSE:
        return [(name, [text in _TRUE for text in lowered])]
    if len(values) > min(_MOST, len(texts) // 2):
        return []
    return [(f"{name}={value}", [text == value for text in texts]) for value in values]


def _joined(columns: Sequence[tuple[str, list[bool]]]) -> Labels:
    if not columns:
        return NO_LABELS
    names = tuple(name for name, _ in columns)
    return Labels(names, np.array([values for _, values in columns], np.bool_).T)


def _nearest_row(path: Path, name: str, alike: Mapping[str, Sequence[str]]) -> str | None:
    """Return the row whose path has the longest common end with that of a picture.

    Args:
        path: The table, for the message.
        name: The picture.
        alike: Rows by the last part of their paths.

    Raises:
        UserError: there are several.
    """
    parts = PurePosixPath(name).parts
    found = {key: _common_end(parts, PurePosixPath(key).parts) for key in alike.get(parts[-1], ())}
    nearest_rows = [key for key, common in found.items() if common == max(found.values())]
    if len(nearest_rows) > 1:
        raise UserError(
            f"data.labels: {path}: rows {quoted(nearest_rows[0])} and {quoted(nearest_rows[1])} "
            f"both fit {printable(name)}; let the rows name files as below the folder of the images"
        )
    return nearest_rows[0] if nearest_rows else None


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _refuse_shared_rows(path: Path, names: Sequence[str], keys: Sequence[str | None]) -> None:
    first = dict[str, str]()
    for name, key in zip(names, keys, strict=True):
        if key is not None and (other := first.setdefault(key, name)) != name:
            raise UserError(
                f"data.labels: {path}: row {quoted(key)} fits {printable(other)} and "
                f"{printable(name)}; let the rows name files as below the folder of the images"
            )


def _rows(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the header without its first column, and the rows by their first value."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])[1:]
            read = [(row[0].replace("\\", "/"), row[1:]) for row in reader if row]
    except (OSError, ValueError, csv.Error) as error:
        text = "not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise UserError(f"data.labels: {path} cannot be read ({text})") from None
    rows = dict(read)
    for name, row in read:
        if rows[name] != row:
            raise UserError(f"data.labels: {path}: has two different rows for {quoted(name)}")
    for name, row in rows.items():
        if len(row) != len(header):
            raise UserError(
                f"data.labels: {path}: {quoted(name)} has {len(row)} values for {len(header)} "
                "columns"
            )
    return header, rows
