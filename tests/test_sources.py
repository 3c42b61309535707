"""Images in archives and arrays, and those that are refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
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


FILES = {f"pets/{'cat' if n % 2 else 'dog'}/{n:02}.png": png(n) for n in range(20)}
JUNK = {"__MACOSX/pets/cat/._01.png": b"x", "pets/.hidden.png": b"x", "pets/run.sh": b"x"}


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def as_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


ARCHIVES = {"images.zip": as_zip, "images.tar.gz": as_tar}


def load(path: Path, **settings: Any) -> ImageDataset:
    return load_dataset(DataConfig(kind="folder", path=path, **settings), 8)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_as_its_folder(tmp_path: Path, cache: Path, name: str) -> None:
    for inner, content in FILES.items():
        (tmp_path / inner).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / inner).write_bytes(content)
    packed = load(ARCHIVES[name](tmp_path / name, FILES | JUNK))
    folder = load(tmp_path / "pets")
    assert packed.attribute_names == folder.attribute_names == ("cat", "dog")
    assert packed.fingerprint == folder.fingerprint
    (unpacked,) = (cache / "archives").iterdir()
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*.*")}
    assert found == set(FILES)


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "..\\out.png"])
def test_names_outside_the_folder_are_refused(
    tmp_path: Path, cache: Path, archive: str, name: str
) -> None:
    path = ARCHIVES[archive](tmp_path / archive, {**FILES, name: png(1)})
    with pytest.raises(UserError, match="has a file outside its folder") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert list((cache / "archives").iterdir()) == []
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_archive_that_unpacks_to_far_too_much_is_refused(
    tmp_path: Path, cache: Path, archive: str
) -> None:
    path = ARCHIVES[archive](tmp_path / archive, {**FILES, "bomb.bmp": bytes(60 * 10**6)})
    with pytest.raises(UserError, match="unpacks to more than 50 MB, which pictures do not"):
        load(path)
    assert list((cache / "archives").iterdir()) == []


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_archives_are_refused_in_one_line(tmp_path: Path, name: str, damage: str) -> None:
    path = ARCHIVES[name](tmp_path / name, FILES)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no archive", "empty": b""}[damage])
    with pytest.raises(UserError, match=str(path)) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert "gz" not in str(error.value) or name.endswith("gz")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a: a[..., 0], [100, 100, 100]),
        (lambda a: a[..., :1], [100, 100, 100]),
        (lambda a: a, [100, 20, 30]),
        (lambda a: (a / 255).astype(np.float32), [100, 20, 30]),
        (lambda a: a.astype(np.uint16) * 257, [100, 20, 30]),
        (lambda a: (a[..., 0].astype(np.int64) * 4095 // 255).astype(np.uint16), [100, 100, 100]),
    ],
)
def test_arrays_of_every_type(tmp_path: Path, make: Any, expected: list[int]) -> None:
    colour = np.full((12, 10, 14, 3), (100, 20, 30), np.uint8)
    colour[3] = 255
    np.save(tmp_path / "images.npy", make(colour))
    dataset = load(tmp_path / "images.npy")
    pixels = sorted(image[:, 4, 4].tolist() for image in dataset.images)
    assert np.abs(np.array(pixels[0]) - expected).max() <= 1
    assert pixels[-1] == [255, 255, 255]


def test_labels_of_an_array_are_classes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(30) % 3)
    dataset = load(tmp_path / "images.npz", count=15)
    assert dataset.attribute_names == ("0", "1", "2")
    assert dataset.about[0].endswith("0 5 of 10, 1 5 of 10, 2 5 of 10")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((12, 3, 8, 8), np.uint8), r"has 0 arrays of images among array uint8 \(12, 3"),
        (np.zeros((12, 8), np.uint8), "has 0 arrays of images"),
        (np.zeros((12, 8, 8), np.int64), "array int64"),
        (np.zeros((3, 8, 8), np.uint8), "3 usable images"),
        (np.zeros((40, 30, 3), np.uint8), r"0 arrays of images among array uint8 \(40, 30, 3\)"),
        (np.full((12, 8, 8), 7.5), "12 of 12 images cannot be read"),
    ],
)
def test_arrays_of_the_wrong_shape_or_type(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "images.npy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["images.npy", "images.npz"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00" + b"(" * 500])
def test_damaged_arrays_are_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as an array") as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)
