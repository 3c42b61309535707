"""YAML is read as far as JSON goes; everything else is refused with its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserError
from search_spaces.yaml_file import MAX_BYTES, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("+1", 1), ("1_000", 1000), ("0x1F", 31), ("1.5", 1.5),
        ("1.e+3", 1000.0), ("-.inf", float("-inf")), ("true", True), ("off", False), ("~", None),
        ("", None), ("null", None), ("'5'", "5"), ("!!float 5", 5.0), ("!!str 5", "5"),
        ("a: {<<: {b: 1}, c: 2}", {"a": {"b": 1, "c": 2}}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("2026-01-01", "2026-01-01"), ("1:30", "1:30"), ("007", "007"), ("1e-4", "1e-4"),
        ("\ufeff5", 5), ("9" * 300, int("9" * 300)), ("9" * 5000, "9" * 5000), ("0x_", "0x_"),
    ],
)  # fmt: skip
def test_what_a_text_means(text: str, value: Any) -> None:
    found = parse_yaml(text, "x")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("&a [*a]", "an alias for what contains it"),
        ("&a {name: *a}", "an alias for what contains it"),
        ("[" * 100_000, "more than 50 levels"),
        ("{a: " * 60 + "1" + "}" * 60, "more than 50 levels"),
        ("!!int x", "'x' is not an integer"),
        ("!!int ''", "'' is not an integer"),
        ("!!float x", "'x' is not a number"),
        ("!!bool x", "'x' is neither true nor false"),
        ("!!timestamp 2026-01-01", "timestamp"),
        ("!!binary aGk=", "binary"),
        ("!!python/object/apply:os.system [ls]", "os.system"),
        ("a: 1\na: 2", "the key 'a' is given twice"),
        ('"\\e[2J"', "has a control character"),
        ('"\\ud800"', "has a control character"),
        ("? [a]\n: 1", "unhashable key"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_yaml(text, "x.yaml")
    assert str(refused.value).startswith("x.yaml: not valid JSON or YAML (")
    assert told in str(refused.value)


def test_aliases_that_stand_for_a_billion_values_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(UserError, match="more than 100,000 values"):
        parse_yaml("\n".join(lines), "x")


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(tmp_path / "x.yaml") == {"name": "x"}


def test_only_regular_files_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero", "."):
        with pytest.raises(UserError, match="not a regular file"):
            read_yaml(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="larger than 10 MB"):
        read_yaml(tmp_path / "large")
