"""Data sets of image files: folders of images, CelebA and its export."""

from __future__ import annotations

import csv
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
    dataset = load_dataset(DataConfig(kind="folder", path=root), 8)
    assert dataset.images.shape == (17, 3, 8, 8)
    assert np.all(dataset.images[15] == 77)  # after the folders a/ in order of path
    left, right = dataset.images[16, 0, :, 0], dataset.images[16, 0, :, -1]
    assert (left.max(), right.min()) == (0, 255)  # both ends of the wide image are there


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
        (Image.new("I;16", (8, 8), 514), {"transparency": 514}, [255, 255, 255]),
        (Image.new("I;16", (8, 8), 514), {"transparency": 515}, [2, 2, 2]),
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
    assert dataset.images[:, 0, 0, 0].tolist() == expected
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
    with pytest.raises(UserError, match="is not a folder; give"):
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
    assert after.images[0].tolist() == np.full((3, 8, 8), 9).tolist()
    assert after.fingerprint != before.fingerprint


def test_moved_files_keep_their_fingerprint(tmp_path: Path) -> None:
    write_images(tmp_path / "here", 12)
    write_images(tmp_path / "there", 12)
    prints = [
        load_dataset(DataConfig(kind="folder", path=tmp_path / name), 8).fingerprint
        for name in ("here", "there")
    ]
    assert prints[0] == prints[1]
