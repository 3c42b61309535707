"""Data sets of image files: folders of images, CelebA and its export."""

from __future__ import annotations

import csv
import os
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.datasets import DataConfig, ImageDataset, export_celeba, load_dataset
from search_spaces.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


@pytest.fixture
def faces() -> ImageDataset:
    return load_dataset(DataConfig(count=20), 32)


@pytest.fixture
def exported(tmp_path: Path, faces: ImageDataset) -> Path:
    export_celeba(faces, tmp_path / "celeba")
    return tmp_path / "celeba"


def write_images(folder: Path, count: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (9, 6), (number, 100, 200)).save(folder / f"{number:04d}{suffix}")


def as_original_text(folder: Path) -> None:
    """Rewrite the Kaggle table in the layout of CelebA's authors."""
    table = folder / "list_attr_celeba.csv"
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    lines = [str(len(rows)), " ".join(header[1:])]
    lines += [f"{name} " + " ".join(f"{value:>2}" for value in rest) for name, *rest in rows]
    (folder / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    table.unlink()


@pytest.mark.parametrize("layout", ["csv", "txt"])
def test_export_and_celeba_loader_are_inverse(
    exported: Path, faces: ImageDataset, layout: str
) -> None:
    if layout == "txt":
        as_original_text(exported)
    read = load_dataset(DataConfig(kind="celeba", path=exported), 32)
    assert read.attribute_names == faces.attribute_names
    assert read.attributes is not None
    assert faces.attributes is not None
    assert np.array_equal(read.attributes, faces.attributes)
    assert np.abs(read.images.astype(int) - faces.images).mean() < 3
    assert np.array_equal(read.train, faces.train)


def test_export_writes_the_split(exported: Path, faces: ImageDataset) -> None:
    with (exported / "list_eval_partition.csv").open(newline="") as file:
        parts = [int(row["partition"]) for row in csv.DictReader(file)]
    assert [parts[index] for index in faces.validation] == [1] * 3
    assert [parts[index] for index in faces.test] == [2] * 3
    assert parts.count(0) == 14


def test_export_refuses_to_mix_with_another(exported: Path, faces: ImageDataset) -> None:
    with pytest.raises(UserError, match="already exists; give another directory"):
        export_celeba(faces, exported)


def test_an_interrupted_export_starts_again(faces: ImageDataset, tmp_path: Path) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_celeba(faces, tmp_path / "celeba", interrupt)
    assert list((tmp_path / "celeba").iterdir()) == []
    export_celeba(faces, tmp_path / "celeba")
    assert sorted(path.name for path in (tmp_path / "celeba").iterdir()) == [
        "img_align_celeba",
        "list_attr_celeba.csv",
        "list_eval_partition.csv",
    ]
    assert len(load_dataset(DataConfig(kind="celeba", path=tmp_path / "celeba"), 32)) == 20


def test_an_impossible_export_names_the_directory(faces: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            UserError, match=r"cannot be written .*; give a writable folder"
        ) as error:
            export_celeba(faces, place)
        assert repr(str(place)) in str(error.value)
        assert "\n" not in str(error.value)


def test_celeba_uses_the_first_by_name(exported: Path, faces: ImageDataset) -> None:
    read = load_dataset(DataConfig(kind="celeba", path=exported, count=12), 32)
    assert len(read) == 12
    assert read.attributes is not None
    assert faces.attributes is not None
    assert np.array_equal(read.attributes, faces.attributes[:12])


def test_celeba_finds_the_nested_kaggle_folder(exported: Path, tmp_path: Path) -> None:
    outer = tmp_path / "kaggle" / "img_align_celeba"
    outer.mkdir(parents=True)
    (exported / "img_align_celeba").rename(outer / "img_align_celeba")
    read = load_dataset(DataConfig(kind="celeba", path=tmp_path / "kaggle"), 32)
    assert (len(read), read.attributes, read.attribute_names) == (20, None, ())


def test_celeba_attributes_of_other_images_are_refused(exported: Path) -> None:
    table = exported / "list_attr_celeba.csv"
    table.write_text(table.read_text().replace("000007.jpg", "900007.jpg"))
    with pytest.raises(UserError, match=r"1 images have no row, first '000007\.jpg'"):
        load_dataset(DataConfig(kind="celeba", path=exported), 32)


def test_celeba_without_its_image_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder 'img_align_celeba'"):
        load_dataset(DataConfig(kind="celeba", path=tmp_path), 32)


def test_folder_reads_every_format_recursively_without_a_crop(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for depth, suffix in enumerate((".jpg", ".jpeg", ".png", ".webp", ".bmp")):
        write_images(root / "/".join("abcde"[:depth]), 3, suffix)
    Image.new("L", (4, 4), 77).save(root / "grey.PNG")
    (root / "notes.txt").write_text("no image")
    wide = Image.new("RGB", (40, 10), (0, 0, 0))
    wide.paste((255, 255, 255), (20, 0, 40, 10))
    wide.save(root / "zz.png")
    dataset = load_dataset(DataConfig(kind="folder", path=root, fit="squash"), 8)
    assert dataset.images.shape == (17, 3, 8, 8)
    assert np.all(dataset.images == 77, axis=(1, 2, 3)).sum() == 1
    left, right = dataset.images[:, 0, :, 0], dataset.images[:, 0, :, -1]
    both = (left.max(axis=1) == 0) & (right.min(axis=1) == 255)
    assert both.sum() == 1  # both ends of the wide image are there


def write_uniform(folder: Path, image: Image.Image, **options: object) -> None:
    folder.mkdir()
    for number in range(10):
        image.save(folder / f"{number}.png", **options)  # type: ignore[arg-type]


def test_sixteen_bit_greys_are_scaled(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 65535], [128, 129, 25700]], np.uint16)
    write_uniform(tmp_path / "grey", Image.fromarray(np.kron(levels, np.ones((8, 8), np.uint16))))
    dataset = load_dataset(DataConfig(kind="folder", path=tmp_path / "grey"), 24)
    rows = dataset.images[0, :, [2, 21], :][:, :, [4, 12, 20]]  # (rows, channels, columns)
    assert rows[:, 0].tolist() == [[0, 1, 255], [0, 1, 100]]
    assert np.array_equal(rows[:, 0], rows[:, 1])
    assert np.array_equal(rows[:, 0], rows[:, 2])


def palette() -> Image.Image:
    image = Image.new("P", (8, 8))
    image.putpalette([255, 0, 0])
    return image


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), {}, [255, 255, 255]),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 51)), {}, [255, 204, 204]),  # 51 = 255 / 5
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), {}, [10, 20, 30]),
        (Image.new("LA", (8, 8), (0, 51)), {}, [204, 204, 204]),
        (palette(), {}, [255, 0, 0]),
        (palette(), {"transparency": 0}, [255, 255, 255]),
        (Image.new("I;16", (8, 8), 51400), {"transparency": 51400}, [255, 255, 255]),
        (Image.new("I;16", (8, 8), 51400), {"transparency": 51401}, [200, 200, 200]),
    ],
)
def test_transparent_parts_show_white(
    tmp_path: Path, image: Image.Image, options: dict[str, object], expected: list[int]
) -> None:
    write_uniform(tmp_path / "images", image, **options)
    dataset = load_dataset(DataConfig(kind="folder", path=tmp_path / "images"), 8)
    assert dataset.images[0, :, 4, 4].tolist() == expected


@pytest.mark.parametrize(("mode", "level"), [("F", 0.5), ("I", 70_000), ("I", -1)])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, mode: str, level: float) -> None:
    write_uniform(tmp_path / "images", Image.new(mode, (8, 8), level), format="TIFF")
    with pytest.raises(UserError, match="10 of 10 images cannot be read"):
        load_dataset(DataConfig(kind="folder", path=tmp_path / "images"), 8)


def test_few_unreadable_images_are_named_and_skipped(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, 100)
    (root / "0042.png").write_bytes(b"not an image")
    dataset = load_dataset(DataConfig(kind="folder", path=root), 8)
    assert dataset.skipped == ("0042.png",)
    expected = [number for number in range(100) if number != 42]
    assert sorted(dataset.images[:, 0, 0, 0].tolist()) == expected
    assert dataset.images.flags.c_contiguous
    covered = np.concatenate([dataset.train, dataset.validation, dataset.test])
    assert sorted(covered.tolist()) == list(range(99))
    again = load_dataset(DataConfig(kind="folder", path=root), 8)
    assert (again.skipped, again.fingerprint) == (dataset.skipped, dataset.fingerprint)


def test_many_unreadable_images_are_refused_by_name(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, 100)
    whole = (root / "0007.png").read_bytes()
    (root / "0007.png").write_bytes(whole[: len(whole) // 2])
    (root / "0042.png").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"2 of 100 .* which is more than 1%.*0007\.png, 0042\.png"
    ) as error:
        load_dataset(DataConfig(kind="folder", path=root), 8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["celeba", "folder"])
def test_missing_and_empty_folders_say_what_to_do(kind: str, tmp_path: Path) -> None:
    missing = DataConfig.model_validate({"kind": kind, "path": tmp_path / "nowhere"})
    with pytest.raises(UserError, match="does not exist; give"):
        load_dataset(missing, 8)
    (tmp_path / "img_align_celeba").mkdir()
    empty = DataConfig.model_validate({"kind": kind, "path": tmp_path})
    with pytest.raises(UserError, match="0 usable images, but at least 10 are needed"):
        load_dataset(empty, 8)


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, 10)
    before = load_dataset(DataConfig(kind="folder", path=root), 8)
    Image.new("RGB", (7, 7), (9, 9, 9)).save(root / "0000.png")
    after = load_dataset(DataConfig(kind="folder", path=root), 8)
    new = np.all(after.images == 9, axis=(1, 2, 3))
    assert new.sum() == 1
    assert np.all(before.images[new, 0] == 0)
    assert after.fingerprint != before.fingerprint


def test_moved_files_keep_their_fingerprint(tmp_path: Path) -> None:
    write_images(tmp_path / "here", 12)
    write_images(tmp_path / "there", 12)
    prints = [
        load_dataset(DataConfig(kind="folder", path=tmp_path / name), 8).fingerprint
        for name in ("here", "there")
    ]
    assert prints[0] == prints[1]


def no_regular_file(root: Path, suffix: str) -> None:
    """Fill a folder with what only looks like an image."""
    os.mkfifo(root / f"fifo{suffix}")
    (root / f"dangling{suffix}").symlink_to(root / "nowhere")
    (root / f"loop{suffix}").symlink_to(root / f"loop{suffix}")
    (root / f"device{suffix}").symlink_to("/dev/zero")
    (root / f"folder{suffix}").mkdir()


@pytest.mark.parametrize("kind", ["folder", "celeba"])
def test_what_is_no_regular_file_is_unreadable_and_never_opened(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "img_align_celeba"
    suffix = ".jpg" if kind == "celeba" else ".png"
    write_images(root, 400, suffix)
    no_regular_file(root, suffix)
    config = DataConfig.model_validate({"kind": kind, "path": tmp_path})
    dataset = load_dataset(config, 8)
    assert len(dataset) == 400
    names = sorted(Path(name).stem for name in dataset.skipped)
    assert names == ["dangling", "device", "fifo", "loop"]


def png_of_size(side: int) -> bytes:
    """Return a small PNG file that claims to have `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(9999))), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("content", [png_of_size(60_000), EPS, b"", bytes(999), b"\x80\x04."])
def test_hostile_and_empty_images_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    write_images(tmp_path / "images", 100)
    (tmp_path / "images" / "zz.png").write_bytes(content)
    monkeypatch.setattr(subprocess, "Popen", refused)
    dataset = load_dataset(DataConfig(kind="folder", path=tmp_path / "images"), 8)
    assert dataset.skipped == ("zz.png",)


def test_any_error_of_a_decoder_counts_as_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: Image.Image, bits: int) -> Image.Image:
        raise RuntimeError("Failed to decode frame 0: Truncated data")

    write_images(tmp_path, 12)
    monkeypatch.setattr("nas.datasets.decoding._as_rgb", broken)
    with pytest.raises(UserError, match="12 of 12 images cannot be read"):
        load_dataset(DataConfig(kind="folder", path=tmp_path), 8)


def test_control_characters_in_file_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_images(tmp_path, 12)
    (tmp_path / "\x1b[31m\udcff.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"remove \\x1b\[31m\\udcff\.png") as refused:
        load_dataset(DataConfig(kind="folder", path=tmp_path), 8)
    assert "\x1b" not in str(refused.value)


ROWS = "\n".join(f"{number:06d}.jpg,1,-1" for number in range(1, 21))
LIST = f"image_id,Male,Young\n{ROWS}\n"


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + LIST.encode(), LIST.replace("\n", "\r\n").encode(), LIST.encode()],
    ids=["byte-order mark", "CRLF", "plain"],
)
def test_celeba_lists_as_other_systems_write_them(exported: Path, content: bytes) -> None:
    (exported / "list_attr_celeba.csv").write_bytes(content)
    read = load_dataset(DataConfig(kind="celeba", path=exported), 32)
    assert read.attribute_names == ("Male", "Young")
    assert read.attributes is not None
    assert read.attributes.tolist() == [[True, False]] * 20


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LIST.encode("utf-16"), "not UTF-8 text"),
        (LIST.replace("Male", "M\xe4nnlich").encode("latin-1"), "not UTF-8 text"),
        (LIST.replace("000005.jpg,1", f"000005.jpg,{'1' * 200_000}").encode(), "field larger"),
        (LIST.replace("000005.jpg,1,-1", "000005.jpg,1").encode(), "1 values for 2 attributes"),
        (LIST.replace("000005.jpg,1", "000005.jpg,\x1b[31m").encode(), r"'\\x1b\[31m', but each"),
        (LIST.replace("000005.jpg,1", "000005.jpg,").encode(), "a value '', but each"),
        (bytes(5000), "20 images have no row"),
        (b"", "20 images have no row"),
    ],
)
def test_celeba_lists_that_cannot_be_read_are_refused_in_one_line(
    exported: Path, content: bytes, reason: str
) -> None:
    (exported / "list_attr_celeba.csv").write_bytes(content)
    with pytest.raises(UserError, match=reason) as refused:
        load_dataset(DataConfig(kind="celeba", path=exported), 32)
    assert "list_attr_celeba.csv" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
