"""Tables as files: the same values in CSV, JSON and Parquet, and nothing that a program runs."""

from __future__ import annotations

import csv
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search_spaces.errors import UserError
from studies.record.table_files import KINDS, table_of, write_table

ROWS: list[dict[str, Any]] = [
    {
        "number": 0, "loss": 0.1 + 0.2, "axis:growth": 8, "contended": True, "reason": None,
        "tiny": 1.2345678901234567e-17, "mixed": "none", "both": 1, "large": 2**53 + 1,
    },
    {
        "number": 1, "loss": -1 / 3, "axis:growth": None, "contended": None,
        "tiny": -5e-324, "mixed": 3, "both": 0.1, "=head": "-5", "large": -(2**62),
        "reason": 'a, "b"\nc',
    },
    {"number": 2, "loss": None, "contended": False, "reason": "é 東京", "mixed": None},
]  # fmt: skip


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file as Python values, without missing ones."""
    if path.suffix == ".json":
        rows = json.loads(path.read_text("utf-8"))
    elif path.suffix == ".parquet":
        frame = pd.read_parquet(path).astype(object)
        rows = frame.where(frame.notna(), None).to_dict("records")
    else:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [{k: _parsed(k, v) for k, v in row.items()} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def _parsed(name: str, text: str) -> Any:
    if not text:
        return None
    if name in ("reason", "mixed", "'=head"):
        return text
    return {"True": True, "False": False}.get(text, json.loads(text.lower()))


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_holds_the_same_values(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{kind}"
    write_table(table_of(ROWS), path, kind)
    wanted = [{k: v for k, v in row.items() if v is not None} for row in ROWS]
    wanted[1]["mixed"] = "3"  # a column of texts and numbers becomes one of texts
    if kind == "csv":
        wanted[1]["'=head"] = f"'{wanted[1].pop('=head')}"
    found = read(path)
    assert found == wanted
    types = [{k: type(v) for k, v in row.items() if k not in ("both", "loss")} for row in found]
    assert types == [
        {k: type(row[k]) for k in names} for row, names in zip(wanted, types, strict=True)
    ]


def test_whole_numbers_stay_whole_where_rows_lack_them(tmp_path: Path) -> None:
    table = table_of(ROWS)
    assert [str(table[name].dtype) for name in ("axis:growth", "contended", "both", "loss")] == [
        "Int64", "boolean", "float64", "float64",
    ]  # fmt: skip
    write_table(table, tmp_path / "t.csv", "csv")
    rows = csv.DictReader((tmp_path / "t.csv").read_text("utf-8").splitlines())
    assert [row["axis:growth"] for row in rows][:2] == ["8", ""]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_spreadsheet_runs_no_cell(start: str, tmp_path: Path) -> None:
    text = f"{start}HYPERLINK(1)"
    write_table(table_of([{"reason": text, text: -1.5, "n": -2}]), tmp_path / "t.csv", "csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        heads, cells = csv.reader(file)
    assert heads == ["reason", f"'{text}", "n"]
    assert cells == [f"'{text}", "-1.5", "-2"]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    write_table(table_of([{"a": float("inf")}, {"a": 1.0}]), tmp_path / "t.json", "json")
    assert json.loads((tmp_path / "t.json").read_text()) == [{"a": None}, {"a": 1.0}]


def test_links_are_followed_and_devices_stay(tmp_path: Path) -> None:
    link, target, pipe = (tmp_path / name for name in ("link", "target", "pipe"))
    link.symlink_to(target)
    write_table(table_of(ROWS), link, "json")
    assert link.is_symlink()
    assert len(json.loads(target.read_text())) == 3
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as reader:
        read_pipe = reader.submit(pipe.read_text)
        write_table(table_of([{"a": 1}]), pipe, "csv")
        assert read_pipe.result(timeout=60) == "a\n1\n"
    assert pipe.is_fifo()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match=r"loop: cannot be written \(Too many levels of symbolic"):
        write_table(table_of(ROWS), loop, "csv")
    assert loop.is_symlink()


def test_an_empty_table_is_written(tmp_path: Path) -> None:
    for kind in KINDS:
        write_table(table_of([]), tmp_path / f"t.{kind}", kind)
    assert json.loads((tmp_path / "t.json").read_text()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_cannot_be_written_names_folder_and_remedy(kind: str, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "t"
    with pytest.raises(UserError, match=r"--out .*/t: .*no folder .*/nowhere\); create it, or"):
        write_table(table_of(ROWS), missing, kind)
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\); give another path"):
        write_table(table_of(ROWS), tmp_path, kind)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        write_table(table_of(ROWS), tmp_path / "file" / "t", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
