"""Malformed files: what can be wrong with each kind of file that `nas` reads."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Write = Callable[[Path], None]
"""Puts a malformed file at a path; what was there is gone already."""


@dataclass(frozen=True)
class Damage:
    """One file that is replaced: its path below the scratch folder, how, and by what."""

    path: str
    how: str
    write: Write

    def inflict(self, root: Path) -> None:
        """Replace the file."""
        path = root / self.path
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.write(path)


def content(data: bytes) -> Write:
    """Return what writes a regular file with this content."""
    return lambda path: void(path.write_bytes(data))


def void(_: object) -> None:
    """Drop a result."""


def _link(target: str) -> Write:
    return lambda path: path.symlink_to(target)


ODD_FILES: dict[str, Write] = {
    "a folder": lambda path: path.mkdir(),
    "a FIFO": os.mkfifo,
    "a dangling link": _link("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to /dev/null": _link("/dev/null"),
    "a link to /dev/zero": _link("/dev/zero"),
    "a link to /dev/full": _link("/dev/full"),
}
"""What is no regular file."""


def foreign(valid: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield contents of any kind of file that another program or an accident left."""
    yield "empty", b""
    yield "a line feed", b"\n"
    yield "zeros of its length", bytes(len(valid))
    yield "NUL bytes at the end", valid + bytes(512)
    for share in (0.1, 0.5, 0.9, 0.99):
        yield f"cut at {share:.0%}", valid[: int(share * len(valid))]
    yield "random bytes", rng.randbytes(2000)
    yield "not UTF-8", b"\xff\xfe\xfa" + valid
    yield "UTF-16", valid.decode("latin-1").encode("utf-16")
    yield "Latin-1", "\u00e9\u00fc: \u00e4\n".encode("latin-1") + valid
    yield "a PNG", b"\x89PNG\r\n\x1a\n" + rng.randbytes(500)
    yield "an SQLite database", b"SQLite format 3\0" + bytes(1000)
    yield "a zip", b"PK\x03\x04" + rng.randbytes(500)
    yield "HTML", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "control characters", b"\x1b[2J\x07\x08name: x\n" + valid
    for number in range(4):
        damaged = bytearray(valid or b" ")
        for _ in range(1 + len(damaged) // 200):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        yield f"flipped bytes {number}", bytes(damaged)


DEEP = 20_000
_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)

TEXTS: dict[str, str] = {
    "null": "null",
    "a list": "[1, 2]",
    "a number": "5",
    "a text": "hello",
    "deep lists": "[" * DEEP,
    "deep closed lists": "[" * DEEP + "]" * DEEP,
    "deep mappings": "{a: " * 3000 + "1" + "}" * 3000,
    "an anchor to itself": "&a [*a]",
    "a mapping with itself": "&a {name: *a, axes: *a, fixed: *a, training: *a}",
    "billion laughs": _LAUGHS,
    "laughs as a value": _LAUGHS + "name: *a9\ntraining: *a9\naxes: *a9\n",
    "a merge of itself": "a: &a {<<: *a}",
    "merges that multiply": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: ["
    + "*b, " * 3000
    + "*b]}",
    "5,000 unknown keys": "".join(f"key{i}: {i}\n" for i in range(5000)),
    "a key of 50,000 characters": "k" * 50_000 + ": 1",
    "a text of 100,000 characters": "name: " + "x" * 100_000,
    "a tag of Python": "!!python/object/apply:os.system ['touch tagged']",
    "an unknown tag": "name: !mine x",
    "a list as a key": "? [a, b]\n: 1",
    "a mapping as a key": "{? {a: 1} : 2}",
    "two documents": "a: 1\n---\nb: 2",
    "a NUL": "name: 'a\0b'",
    "an escape": 'name: "\\e[2J"',
    "an unknown escape": 'name: "\\q"',
    "a surrogate": 'name: "\\ud800"',
    "keys that are no texts": "1: 2\nnull: 3\ntrue: 4\n2026-01-01: 5\n1.5: 6",
    "5,000 digits": "name: " + "9" * 5000,
    "a key twice": "name: a\nname: b",
    "a tab": "name:\n\t- x",
    "a directive": "%YAML 9.9\n---\nname: x",
}
"""YAML and JSON texts that describe nothing."""

WRONG: tuple[Any, ...] = (
    *(None, "", "x", -1, 0, 1.5, float("nan"), float("inf"), 10**30, True, [], {}, [None]),
    *({"a": 1}, "\x1b[2J", "\u0663", "9" * 5000, "../x", [[[[1]]]]),
)
"""Values of a wrong type or range for most places."""

RAW = ("1e400", "0x_", "9" * 5000, "2026-01-01", "1:30", "!!int x", "!!float .inf", "!!set {1}",
       "!!binary aGk=", "&a [*a]", "*x", "!!python/name:os.system", "0o_", "-.inf", "'\ufeff'",
       "1_000", "!!timestamp 2026-01-01", "\ufeff5")  # fmt: skip
"""YAML that no Python value is written as."""


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value inside lists and mappings, inner ones too."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from leaves(value, (*path, key))


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of `data` with another value at a place."""
    found = copy.deepcopy(data)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


_MARK = "M4RK"


def wrong_values(data: Any, rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Yield JSON texts of `data` with one wrong value, or one value removed."""
    places = list(leaves(data))
    for _ in range(count):
        place = rng.choice(places)
        where = ".".join(map(str, place))
        value = rng.choice(WRONG)
        if value == {} and isinstance(_at(data, place), dict):
            value = None  # an empty section may be valid: all its values have defaults
        yield f"{where} = {value!r:.40}", json.dumps(replaced(data, place, value))


def raw_values(data: Any, rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Yield YAML texts of `data` with one value that only YAML can write."""
    places = list(leaves(data))
    for _ in range(count):
        place, raw = rng.choice(places), rng.choice(RAW)
        text = yaml.safe_dump(replaced(data, place, _MARK), sort_keys=False)
        yield f"{'.'.join(map(str, place))} = {raw:.40}", text.replace(_MARK, raw)


def wrong_lines(text: str, rng: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of JSON lines of which one is damaged."""
    lines = text.splitlines(keepends=True)
    odd = (b"null\n", b"[]\n", b"5\n", b'"x"\n', b"{}\n", b"\xff\xfe\n", b"\0\0\0\n", b"\n",
           b'{"op_code": 99}\n', b'{"op_code": 1e400}\n', b"9" * 5000 + b"\n", b"[" * DEEP + b"\n",
           b"NaN\n", b'{"op_code": "x"}\n', b'{"op_code": null}\n')  # fmt: skip
    for number in range(count):
        at = rng.randrange(len(lines))
        before, after = "".join(lines[:at]).encode(), "".join(lines[at + 1 :]).encode()
        if number % 2 == 0 or not lines[at].startswith("{"):
            line = rng.choice(odd)
            yield f"line {at + 1} is {line[:20]!r}", before + line + after
            continue
        data = json.loads(lines[at])
        [(how, text_)] = wrong_values(data, rng, 1)
        yield f"line {at + 1}: {how}", before + text_.encode() + b"\n" + after


def wrong_arrays(valid: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield `.npy` files with other headers, types and shapes."""
    array = np.load(io.BytesIO(valid))
    yield "another shape", _npy(array.reshape(-1))
    yield "another type", _npy(array.astype(np.float64))
    yield "no rows", _npy(array[:0])
    yield "one row fewer", _npy(array[:-1])
    yield "a scalar", _npy(np.array(5))
    yield "zeros", _npy(np.zeros_like(array))
    yield "text", _npy(np.array(["x"]))
    yield "objects", _objects()
    for name, header in (
        ("a deep header", b"(" * 5000),
        ("a header without keys", b"{}"),
        ("a huge shape", b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,)}"),
        ("a negative shape", b"{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}"),
        (
            "a shape of 5,000 digits",
            b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",)}",
        ),
        ("an unknown type", b"{'descr': 'zz', 'fortran_order': False, 'shape': (1,)}"),
    ):
        yield name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    yield "version 9", b"\x93NUMPY\x09\x00" + valid[8:]


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


def wrong_tensors(valid: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield safetensors files with other headers and tensors."""
    length = int.from_bytes(valid[:8], "little")
    header, rest = json.loads(valid[8 : 8 + length]), valid[8 + length :]

    def packed(changed: Any) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + rest

    first = next(name for name in header if name != "__metadata__")
    yield "no metadata", packed({k: v for k, v in header.items() if k != "__metadata__"})
    yield "a tensor missing", packed({k: v for k, v in header.items() if k != first})
    for key, value in (("shape", [1]), ("shape", [10**30]), ("dtype", "X9"), ("data_offsets", [5])):
        yield f"{key} = {value}", packed({**header, first: {**header[first], key: value}})
    yield "a tensor renamed", packed({("x" if k == first else k): v for k, v in header.items()})
    for value in ("", "{}", "null", "[1]", "x", "[" * DEEP):
        metadata = dict.fromkeys(header.get("__metadata__", {"architecture": ""}), value)
        yield f"metadata {value:.10}", packed({**header, "__metadata__": metadata})
    yield "a header of 2^60 bytes", (2**60).to_bytes(8, "little") + valid[8:]
    yield "a header that is a list", packed([])
    yield "a deep header", (DEEP).to_bytes(8, "little") + b"[" * DEEP
