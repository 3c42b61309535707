"""Images in tables as `datasets` of Hugging Face writes them, and images from Python."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nas.datasets import DataConfig, ImageDataset, load_dataset
from search_spaces.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (level, 50, 60)).save(file, "PNG")
    return file.getvalue()


def load(path: Path, **settings: Any) -> ImageDataset:
    return load_dataset(DataConfig(kind="folder", path=path, **settings), 8)


NAMES = ["cat", "a/dog"]
METADATA = {
    "info": {
        "features": {
            "image": {"_type": "Image"},
            "label": {"names": NAMES, "_type": "ClassLabel"},
        }
    }
}


def table(levels: Sequence[int], metadata: Any = METADATA) -> pa.Table:
    """Return a table as `datasets` has it: pictures with bytes and path, and numbered classes."""
    pictures = [{"bytes": png(level), "path": f"{level}.png"} for level in levels]
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        {"huggingface": json.dumps(metadata)} if metadata else None,
    )
    return pa.table({"image": pictures, "label": [n % 2 for n in levels]}, schema)


def as_parquet(path: Path, rows: pa.Table) -> None:
    pq.write_table(rows, path.with_suffix(".parquet"))


def as_stream(path: Path, rows: pa.Table) -> None:
    with pa.ipc.new_stream(str(path.with_suffix(".arrow")), rows.schema) as writer:
        writer.write_table(rows, max_chunksize=7)


def as_file(path: Path, rows: pa.Table) -> None:
    with pa.ipc.new_file(str(path.with_suffix(".arrow")), rows.schema) as writer:
        writer.write_table(rows, max_chunksize=7)


WRITERS = [as_parquet, as_stream, as_file]
Write = Callable[[Path, pa.Table], None]


@pytest.mark.parametrize("write", WRITERS)
def test_a_table_is_as_a_folder_of_its_pictures(tmp_path: Path, write: Write) -> None:
    (tmp_path / "one").mkdir()
    write(tmp_path / "one" / "data", table(range(150)))
    for level in range(150):
        place = tmp_path / "pets" / ("a_dog" if level % 2 else "cat")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{level:07}.png").write_bytes(png(level))
    (file,) = (tmp_path / "one").iterdir()
    expected = load(tmp_path / "pets")
    assert expected.attribute_names == ("a_dog", "cat")
    for path in (tmp_path / "one", file):
        dataset = load(path)
        assert dataset.fingerprint == expected.fingerprint
        assert dataset.attribute_names == expected.attribute_names
        assert dataset.attributes is not None
        assert expected.attributes is not None
        assert np.array_equal(dataset.attributes, expected.attributes)


@pytest.mark.parametrize("write", WRITERS)
def test_files_and_folders_of_parts_give_the_split(tmp_path: Path, write: Write) -> None:
    saved, hub = tmp_path / "saved", tmp_path / "hub"
    for part, levels in {"train": range(40), "test": range(40, 52)}.items():
        (saved / part).mkdir(parents=True)
        write(saved / part / "data-00000-of-00001", table(levels))
        (hub / "data").mkdir(parents=True, exist_ok=True)
        write(hub / "data" / f"{part}-00000-of-00001", table(levels))
    for root in (saved, hub):
        dataset = load(root)
        red = dataset.images[:, 0, 0, 0]
        assert sorted(red[dataset.test].tolist()) == list(range(40, 52))
        assert "split by the folders test/, train/" in dataset.about[2]
    alone = load(saved / "train")
    assert (len(alone), len(alone.train)) == (40, 28)


def test_a_column_is_found_without_metadata(tmp_path: Path) -> None:
    rows = table(range(12), None)
    contents = [one["bytes"] for one in rows.column("image").to_pylist()]
    as_parquet(tmp_path / "plain", pa.table({"jpg": contents, "n": list(range(12))}))
    dataset = load(tmp_path / "plain.parquet")
    assert (len(dataset), dataset.attribute_names) == (12, ())
    as_parquet(tmp_path / "plain", pa.table({"image": contents, "mask": contents}))
    assert len(load(tmp_path / "plain.parquet")) == 12


def test_a_cell_may_have_a_path_alone(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for level in range(12):
        (tmp_path / "files" / f"{level}.png").write_bytes(png(level))
    paths = [f"files/{n}.png" if n % 2 else str(tmp_path / f"files/{n}.png") for n in range(12)]
    rows = pa.table({"image": [{"bytes": None, "path": path} for path in paths]})
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    as_parquet(tmp_path / "t", rows.cast(pa.schema({"image": kind})))
    assert sorted(load(tmp_path / "t.parquet").images[:, 0, 0, 0]) == list(range(12))


def test_an_empty_cell_is_an_unreadable_picture(tmp_path: Path) -> None:
    rows = table(range(200))
    pictures = rows.column("image").to_pylist()
    pictures[7] = {"bytes": None, "path": "elsewhere.png"}
    pictures[8] = None
    column = pa.array(pictures, rows.schema.field("image").type)
    as_parquet(tmp_path / "holes", rows.set_column(0, "image", column))
    dataset = load(tmp_path / "holes.parquet", max_unreadable=0.02)
    assert (len(dataset), len(dataset.skipped)) == (198, 2)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"n": list(range(12))}, r"has no column of pictures, or several, among n \(int64\)"),
        ({"a": [b"x"] * 12, "b": [b"x"] * 12}, r"several, among a \(binary\), b \(binary\)"),
        ({"image": [b"x"] * 12}, "12 of 12 images cannot be read"),
        ({"image": [png(1)] * 3}, "3 usable images"),
    ],
)
def test_tables_without_pictures_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], told: str
) -> None:
    as_parquet(tmp_path / "t", pa.table(columns))
    with pytest.raises(UserError, match=told) as error:
        load(tmp_path / "t.parquet")
    assert str(error.value).startswith(f"{tmp_path / 't.parquet'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped"])
def test_damaged_tables_are_refused_in_one_line(
    tmp_path: Path, cache: Path, write: Write, damage: str
) -> None:
    write(tmp_path / "t", table(range(60)))
    (path,) = tmp_path.glob("t.*")
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "text": b"no table",
            "empty": b"",
            "flipped": bytes(255 - one for one in whole[:4000]) + whole[4000:],
        }[damage]
    )
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert list((cache / "archives").iterdir()) == []
