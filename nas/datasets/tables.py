"""Read the pictures of Parquet and Arrow tables, as `datasets` of Hugging Face writes them.

A column of pictures has their files as bytes, or their paths, or both. The pictures are unpacked
into the cache; a column of classes names their folders, and files whose names begin with `train`,
`validation` or `test`, or that lie in folders of these names, give the parts.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nas.datasets.listing import PARTS, SUFFIXES, is_foreign
from nas.datasets.unpacking import Target, unpacked_once
from search_spaces.errors import UserError

ENDINGS = (".parquet", ".arrow")
_BATCH = 64  # rows that are in memory at a time
_CLASSES = ("label", "labels", "class", "fine_label")
"""Names of columns that hold a class where no metadata say so, in order of preference."""


@dataclass(frozen=True)
class _Columns:
    """The column of the pictures, that of their classes, and the names of these."""

    pictures: str
    classes: str | None
    names: Sequence[str]


def is_table(path: Path) -> bool:
    """Return whether a file's name is that of a table."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith("cache-")


def tables_in(folder: Path) -> list[Path]:
    """Return the tables below a folder, of one kind: a copy in the other kind is left out."""
    for ending in ENDINGS:
        found = [path for path in sorted(folder.rglob(f"*{ending}")) if is_table(path)]
        seen = [path for path in found if not any(map(is_foreign, path.relative_to(folder).parts))]
        if seen:
            return seen
    return []


def unpacked_tables(path: Path) -> Path:
    """Return the folder in the cache that has the pictures of a table, or of a folder of tables.

    Raises:
        UserError: a table is damaged or has not one column of pictures.
    """
    files = [path] if path.is_file() else tables_in(path)
    parts = _parts(files, path)

    def unpack(target: Target) -> None:
        number = 0
        for file, part in zip(files, parts, strict=True):
            for place, content in _pictures(file, number):
                target.count(len(content))
                target.write(PurePosixPath(part) / place, io.BytesIO(content))
                number += 1

    return unpacked_once(path, files, unpack)


def _parts(files: Sequence[Path], root: Path) -> list[str]:
    """Return the part that each file belongs to; empty texts if one does not say it."""
    found = []
    for file in files:
        folders = () if file == root else file.relative_to(root).parts[:-1]
        words = [*folders, re.split(r"[-_.]", file.name)[0]]
        known = [PARTS[word.lower()] for word in words if word.lower() in PARTS]
        found.append(known[0] if known else "")
    return found if all(found) and len(files) > 1 else [""] * len(files)


def _pictures(file: Path, first: int) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the place and the content of each picture of a table; nothing for an empty cell."""
    for number, batch in _numbered(file, first):
        columns = _columns(file, batch.schema)
        pictures = batch.column(columns.pictures).to_pylist()
        classes = batch.column(columns.classes).to_pylist() if columns.classes else pictures
        for row, (picture, one) in enumerate(zip(pictures, classes, strict=True)):
            content, suffix = _content(picture, file.parent)
            folder = _folder(one, columns.names) if columns.classes else ""
            yield PurePosixPath(folder) / f"{number + row:07d}{suffix}", content


def _numbered(file: Path, first: int) -> Iterator[tuple[int, Any]]:
    number = first
    for batch in _batches(file):
        yield number, batch
        number += len(batch)


def _batches(file: Path) -> Iterator[Any]:
    """Yield the record batches of a table, at most `_BATCH` rows each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix.lower() == ".parquet":
        with pq.ParquetFile(file) as table:
            wanted = _wanted(_columns(file, table.schema_arrow))
            yield from table.iter_batches(_BATCH, columns=wanted)
        return
    with pa.memory_map(str(file)) as mapped:
        is_file = mapped.read(6) == b"ARROW1"
        mapped.seek(0)
        with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(mapped) as reader:
            wanted = _wanted(_columns(file, reader.schema))
            whole = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
            for batch in whole:
                batch.validate(full=True)  # offsets outside the file would be followed
                for start in range(0, len(batch), _BATCH):
                    yield batch.slice(start, _BATCH).select(wanted)


def _wanted(columns: _Columns) -> list[str]:
    return [columns.pictures, *([columns.classes] if columns.classes else [])]


def _columns(file: Path, schema: Any) -> _Columns:
    """Return the columns of a table.

    Raises:
        UserError: it has not one column of pictures.
    """
    features = _features(schema)
    told = [name for name, one in features.items() if one.get("_type") == "Image"]
    seen = [field.name for field in schema if _holds_files(field.type)]
    named = [name for name in seen if name in ("image", "img")]
    pictures = next((one for one in (told, named, seen) if len(one) == 1), [])
    if len(pictures) != 1 or pictures[0] not in schema.names:
        listed = ", ".join(f"{field.name} ({field.type})" for field in schema)[:200]
        raise UserError(
            f"{file}: has no column of pictures, or several, among {listed or 'no columns'}; "
            "export the pictures to files"
        )
    labels = [n for n, one in features.items() if one.get("_type") == "ClassLabel"]
    classes = next((n for n in (*labels, *_CLASSES) if n in schema.names), None)
    names = features.get(classes or "", {}).get("names", [])
    known = [str(name) for name in names] if isinstance(names, list) else []
    return _Columns(pictures[0], classes, known)


def _features(schema: Any) -> dict[str, Mapping[str, Any]]:
    """Return what `datasets` says about the columns, from the metadata of a table."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        stored = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {str(name): one for name, one in stored.items() if isinstance(one, dict)}
    return {}


def _holds_files(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _content(picture: Any, folder: Path) -> tuple[bytes, str]:
    """Return the content of a picture's file, and the ending of its name.

    A cell may have the path of the file alone; it is empty where there is no such file.
    """
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    path = Path(str(picture.get("path") or "")) if isinstance(picture, dict) else Path()
    if content is None and path.name:
        with suppress(OSError, ValueError):
            content = (folder / path).read_bytes() if (folder / path).is_file() else None
    suffix = path.suffix.lower()
    return content or b"", suffix if suffix in SUFFIXES else ".png"


def _folder(one: Any, names: Sequence[str]) -> str:
    """Return a class as the name of a folder."""
    known = isinstance(one, int) and 0 <= one < len(names)
    text = "unlabelled" if one is None or one == -1 else names[one] if known else str(one)
    return re.sub(r"[^\w .+-]", "_", text).strip(". ")[:80] or "_"
