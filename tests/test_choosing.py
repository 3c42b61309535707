"""Which images of a folder are used, in which part, with which attributes, and what is said."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from nas.datasets import DataConfig, ImageDataset, export_celeba, load_dataset, preview_images
from nas.datasets.choosing import in_words, random_order, split_by_group
from nas.datasets.duplicates import duplicates_in_words
from nas.datasets.files import choose_in_folder
from nas.datasets.labels import Table
from nas.datasets.listing import layout_of, list_pictures
from search_spaces.errors import UserError
from studies.config.loading import load_config
from studies.config.study import StudyConfig
from studies.store.agreement import require_same_question
from tests.helpers.command import nas


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def noise(seed: int) -> Image.Image:
    """Return a picture unlike that of any other seed."""
    levels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(levels).resize((32, 32), Image.Resampling.BICUBIC)


def write(root: Path, counts: Mapping[str, int]) -> Path:
    """Write so many different pictures into each folder."""
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            noise(1000 * number + index).save(root / folder / f"{index:03}.png")
    return root


def load(root: Path, **settings: object) -> ImageDataset:
    return load_dataset(DataConfig(kind="folder", path=root, **settings), 16)


def test_a_sample_has_its_share_of_every_class(tmp_path: Path) -> None:
    root = write(tmp_path / "flowers", {"daisy": 60, "rose": 30, "tulip": 10})
    dataset = load(root, count=50)
    assert dataset.attribute_names == ("daisy", "rose", "tulip")
    assert dataset.attributes is not None
    assert dataset.attributes.sum(axis=0).tolist() == [30, 15, 5]
    assert (len(dataset), dataset.found) == (50, 100)
    first = "50 of 100 images (at random, seed 0): daisy 30 of 60, rose 15 of 30, tulip 5 of 10"
    assert dataset.about[0] == first
    assert load(root, count=50, seed=1).fingerprint != dataset.fingerprint
    assert load(root, count=50).fingerprint == dataset.fingerprint


@pytest.mark.parametrize("sizes", [(60, 30, 10), (97, 1, 1, 1), (1,) * 100, (100,)])
def test_any_beginning_of_the_order_is_stratified(sizes: Sequence[int]) -> None:
    strata = [stratum for stratum, size in enumerate(sizes) for _ in range(size)]
    order = random_order(strata, 3)
    assert sorted(order) == list(range(100))
    for count in range(1, 100):
        have = Counter(strata[row] for row in order[:count])
        for stratum, size in enumerate(sizes):
            assert abs(have[stratum] - size * count / 100) < 2


def test_a_larger_sample_decodes_only_what_is_new(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"": 40})
    small = load(root, count=20)
    calls: list[tuple[int, int]] = []
    large = load_dataset(
        DataConfig(kind="folder", path=root, count=30), 16, lambda *done: calls.append(done)
    )
    assert np.array_equal(large.images[:20], small.images)
    assert calls == [(30, 30)]


def test_long_lists_of_classes_are_cut() -> None:
    classes = [f"c{number % 12:02}" for number in range(120)]
    text = in_words(120, 120, classes, classes, "unused")
    assert text.startswith("120 of 120 images: c00 10 of 10, ")
    assert text.endswith(", c07 10 of 10, and 4 more classes")


def test_folders_of_parts_are_recognised(tmp_path: Path) -> None:
    counts = {"train/a": 12, "train/b": 8, "val/a": 3, "val/b": 3, "test/a": 2, "test/b": 4}
    dataset = load(write(tmp_path / "images", counts))
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [20, 6, 6]
    assert dataset.attributes is not None
    assert dataset.attributes[dataset.test].sum(axis=0).tolist() == [2, 4]
    assert "split by the folders test/, train/, val/" in dataset.about
    at_random = load(tmp_path / "images", split="random")
    assert (len(at_random.train), at_random.fingerprint == dataset.fingerprint) == (22, False)


def test_a_part_without_a_folder_is_drawn_from_training(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "images", {"train": 30, "test": 10}))
    assert [len(p) for p in (dataset.train, dataset.validation, dataset.test)] == [24, 6, 10]
    assert any(
        text.endswith("validation drawn from train at random (seed 42)") for text in dataset.about
    )


@pytest.mark.parametrize(
    ("names", "parts", "classes"),
    [
        (["a/1", "b/2"], (), ("a", "b")),
        (["x/a/1", "x/b/2"], (), ("a", "b")),
        (["x/1", "x/2"], (), ("", "")),
        (["1", "b/2"], (), ("", "b")),
        (["x/Train/a/1", "x/Test/b/2"], ("train", "test"), ("a", "b")),
        (["train/1", "valid/2"], ("train", "validation"), ("", "")),
        (["train/1", "other/2"], (), ("train", "other")),
        (["test/1", "val/2"], (), ("test", "val")),
    ],
)
def test_what_folders_mean(
    names: list[str], parts: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    found = layout_of(names)
    assert (found.parts, found.classes) == (parts, classes)


def test_parts_that_share_pictures_are_refused_or_cleaned(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"train": 20, "test": 10})
    noise(5).save(root / "test" / "again.png")
    with pytest.raises(UserError, match=r"1 held-out images .*test/again\.png.*duplicates=drop"):
        load(root)
    assert len(load(root, duplicates="drop").test) == 10


def test_duplicates_across_parts_are_counted_and_dropped(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"": 40})
    for number in range(20):
        noise(number).save(root / f"copy-{number}.png")
        near = np.asarray(noise(number)).astype(int) + 3
        mirrored = Image.fromarray(near.clip(0, 255).astype(np.uint8)[:, ::-1])
        mirrored.save(root / f"mirrored-{number}.png")
    dataset = load(root)
    (words,) = duplicates_in_words(dataset)
    assert "exact" in words
    assert "near" in words
    clean = load(root, duplicates="drop")
    assert duplicates_in_words(clean) == []
    assert len(clean.train) == len(dataset.train) == 56
    assert 0 < len(clean.validation) < 12
    assert clean.fingerprint != dataset.fingerprint
    assert any(text.startswith("left out: ") for text in clean.about)


def test_different_pictures_are_no_duplicates(tmp_path: Path) -> None:
    assert duplicates_in_words(load(write(tmp_path / "images", {"": 60}))) == []


def test_a_group_is_in_one_part_only(tmp_path: Path) -> None:
    root = tmp_path / "people"
    root.mkdir()
    for number in range(60):
        noise(number).save(root / f"person{number // 4:02}_{number % 4}.png")
    dataset = load(root, group=r"(person\d+)_")
    names = choose_in_folder(DataConfig(kind="folder", path=root)).source.names
    order = random_order([""] * 60, 0)
    parts = [dataset.train, dataset.validation, dataset.test]
    people = [{names[order[row]][:8] for row in part} for part in parts]
    assert [len(part) for part in parts] == [40, 12, 8]
    assert len(people[0] | people[1] | people[2]) == sum(map(len, people)) == 15
    assert any("15 groups, each in one part" in text for text in dataset.about)


def test_every_part_gets_a_group_even_if_one_is_huge() -> None:
    split = split_by_group(["a"] * 98 + ["b", "c"], 0, "names")
    assert sorted(map(len, (split.train, split.validation, split.test))) == [1, 1, 98]


def table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_pictures_beside_the_folders_of_parts_are_told(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"train": 20, "test": 9, "more": 1, "": 1})
    told = "; not by the folders train/, test/, ..., since other images are beside them: "
    assert load(root).about[2] == f"split at random, seed 42{told}no folder, more/"
    assert load(root, split="random").about[2] == "split at random, seed 42"
    vehicles = write(tmp_path / "vehicles", {"train": 20, "car": 9})
    assert load(vehicles).about[2] == "split at random, seed 42"


def test_a_table_gives_attributes_and_groups(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"": 30})
    rows = [[f"{n:03}.png", n % 2, "red" if n % 3 else "blue", f"p{n // 3}"] for n in range(30)]
    path = table(tmp_path / "labels.csv", [["file", "Smiling", "colour", "person"], *rows])
    dataset = load(root, labels=path, group_column="person")
    assert dataset.attribute_names[:3] == ("Smiling", "colour=blue", "colour=red")
    assert dataset.attributes is not None
    assert dataset.attributes[:, :3].sum(axis=0).tolist() == [15, 10, 20]
    assert any("10 groups" in text for text in dataset.about)


def test_a_table_that_names_files_by_longer_paths(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"a": 6, "b": 6})
    files = [(folder, f"{n:03}.png") for folder in "ab" for n in range(6)]
    rows = [[rf"c:\data\{folder}\{name}", folder] for folder, name in files]
    path = table(tmp_path / "labels.csv", [["file", "kind"], *rows])
    names = [f"{folder}/{name}" for folder, name in files]
    assert Table(path, names).column("kind") == [*"aaaaaabbbbbb"]
    assert load(root, labels=path).attribute_names == ("kind=a", "kind=b")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{n:03}.png" for n in range(6)], r"row '000\.png' fits a/000\.png and b/000\.png"),
        ([f"{f}/{n:03}.png" for f in "cd" for n in range(6)], "both fit a/000.png"),
    ],
)
def test_a_table_whose_rows_do_not_tell_pictures_apart(
    tmp_path: Path, rows: list[str], message: str
) -> None:
    path = table(tmp_path / "labels.csv", [["file", "kind"], *([row, "1"] for row in rows)])
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "images", {"a": 6, "b": 6}), labels=path)


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([["f", "A"], ["x.png", "1"]], {}, r"12 of 12 images have no row.*first 'x\.png'"),
        ([["f", "A"], ["000.png"]], {}, r"'000\.png' has 0 values for 1 columns"),
        ([["f", "A"]], {}, "12 of 12 images have no row"),
        (
            [["f", "A"], *([f"{n:03}.png", n] for n in range(12)), ["003.png", 8]],
            {},
            r"has two different rows for '003\.png'",
        ),
        (
            [["f", "Person"], *([f"{n:03}.png", n] for n in range(12))],
            {"group_column": "person"},
            "no column 'person'; it has Person",
        ),
    ],
)
def test_tables_that_do_not_fit(
    tmp_path: Path, rows: list[list[object]], settings: dict[str, str], message: str
) -> None:
    root = write(tmp_path / "images", {"": 12})
    path = table(tmp_path / "labels.csv", rows)
    with pytest.raises(UserError, match=message) as error:
        load(root, labels=path, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": "("}, "is no regular expression"),
        ({"group": "a", "split": "random"}, "only one of split, group"),
        ({"group_column": "a"}, "needs labels"),
        ({"split": "official"}, "does not go with kind 'folder'"),
        ({"fit": "stretch"}, "'squash', 'crop' or 'pad'"),
        ({"grey_bits": 7}, "greater than or equal to 8"),
        ({"max_unreadable": 1}, "less than 1"),
    ],
)
def test_settings_that_contradict(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate({"kind": "folder", "path": "x", **settings})


def test_a_pattern_that_does_not_fit_a_name(tmp_path: Path) -> None:
    root = write(tmp_path / "images", {"": 12})
    with pytest.raises(UserError, match=r"data\.group: 'person' does not fit '000\.png'"):
        load(root, group="person")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"": 6})
    root = write(tmp_path / "images", {"": 6})
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert len(list_pictures(root).names) == 12


def test_a_folder_of_other_things_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("a.HEIC", "inner/b.heic", "notes.txt", ".DS_Store"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"0 usable images.*2 \.heic.*convert them to JPEG"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.npz", "a.parquet"])
def test_a_folder_of_packed_pictures_says_what_to_give(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"": 2})
    (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"2 usable images.*give the (archive|array|table)"):
        load(tmp_path)


def test_a_moved_folder_is_the_same_and_a_relative_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "before", {"a": 10, "b": 10})
    before = load(root).fingerprint
    root.rename(tmp_path / "after")
    monkeypatch.chdir(tmp_path)
    config = DataConfig(kind="folder", path=Path("after"))
    monkeypatch.chdir("/")
    assert load_dataset(config, 16).fingerprint == before


def test_the_configuration_is_stored_as_before_where_nothing_is_new() -> None:
    stored = {"kind": "faces", "path": None, "count": 20, "seed": 0, "split_seed": 42}
    assert DataConfig(count=20).model_dump(mode="json") == stored
    folder = DataConfig(kind="folder", path=Path("/x")).model_dump(mode="json")
    assert folder == {**stored, "kind": "folder", "path": "/x", "count": None, "fit": "crop"}


def test_a_preview_decodes_what_it_shows(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "images", {"a": 30, "b": 30})
    config = DataConfig(kind="folder", path=root)
    images, about = preview_images(choose_in_folder(config), config, 8, 12, seed=0)
    assert images.shape == (12, 3, 8, 8)
    assert about[0] == "60 of 60 images: a 30 of 30, b 30 of 30"
    assert [path.name.endswith("-12.images.npy") for path in cache.glob("*.images.npy")] == [True]


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a terminal on which no line of a command breaks."""
    monkeypatch.setenv("COLUMNS", "1000")


@pytest.mark.usefixtures("wide")
def test_what_a_folder_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write(tmp_path / "images", {"a": 12, "b": 8})
    Image.new("L", (64, 16)).save(root / "a" / "wide.jpg")
    (root / "a" / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("")
    assert nas("data", "info", str(root), "--size", "32") == 2
    printed = capsys.readouterr()
    lines = dict(line.split(": ", 1) for line in printed.out.splitlines())
    assert lines["a study uses"] == "22 of 22 images: a 14 of 14, b 8 of 8"
    assert lines["formats"] == "20 PNG, 1 JPEG"
    assert lines["modes"] == "20 RGB, 1 L"
    assert lines["sizes"] == "32 to 64 x 16 to 32 px"
    assert lines["enlarged"] == "4.8% are smaller than 32 px"
    assert lines["unreadable headers"] == "1 empty"
    assert lines["split"].startswith("at random, seed 42: train 15 (")
    assert lines["decoding"].endswith("ms per image, about 1 s in all")
    assert lines["cache"] == "0.1 MB at 32 px"
    stop = f"nas: a study would stop: {root}: 1 of 22 images cannot be read"
    assert printed.err.startswith(stop)
    assert lines["ignored files"] == "1 .txt"
    assert nas("data", "info", str(tmp_path / "nowhere")) == 2


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, str]:
    assert nas("data", "info", *words) == 0
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.usefixtures("wide")
def test_what_an_array_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 9, 3), np.uint8)
    images[20:] = images[:20]
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(40) % 2)
    lines = facts(capsys, str(tmp_path / "images.npz"), "--size", "9x12")
    assert (lines["formats"], lines["modes"]) == ("40 array", "40 uint8 of 3 channels")
    assert lines["sizes"] == "9 to 9 x 12 to 12 px"
    assert lines["enlarged"] == "100.0% are smaller than 9x12 px"
    assert lines["a study uses"] == "40 of 40 images: 0 20 of 20, 1 20 of 20"
    assert "exact duplicates of images of another part" in lines["duplicates"]
    assert "ignored files" not in lines


@pytest.mark.usefixtures("wide")
def test_what_an_archive_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "images", {"train/a": 20, "train/b": 20, "test/a": 6, "test/b": 6})
    shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    lines = facts(capsys, str(tmp_path / "images.zip"), "--size", "16", "--images", "26")
    assert lines["a study uses"].startswith("26 of 52 images (at random, seed 0): a 13 of 26")
    assert "the folders test/, train/; validation drawn from train" in lines["split"]
    assert "test 6 (a 3, b 3)" in lines["split"]
    assert lines["formats"] == "52 PNG"


def test_images_that_take_long_are_not_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.datasets.inspection._PATIENCE_S", 0)
    lines = facts(capsys, str(write(tmp_path / "images", {"": 30})), "--size", "16")
    assert lines["duplicates"].startswith("not counted")
    assert not list(tmp_path.rglob("*.npy"))


def test_the_cache_is_listed_and_cleared(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(write(tmp_path / "images", {"": 200}))
    assert nas("data", "cache", "list") == 0
    listed = capsys.readouterr().out
    assert f"0.2 MB  {cache}" in listed  # 200 x 3 x 16 x 16 bytes and their header
    assert nas("data", "cache", "clear") == 0
    assert capsys.readouterr().out == "0.2 MB freed\n"
    assert list(cache.iterdir()) == []


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    export_celeba(load_dataset(DataConfig(count=20), 32), tmp_path / "celeba")
    return tmp_path / "celeba"


def test_the_official_partition_of_celeba(celeba: Path) -> None:
    dataset = load_dataset(DataConfig(kind="celeba", path=celeba, split="official"), 32)
    at_random = load_dataset(DataConfig(kind="celeba", path=celeba), 32)
    for part in ("train", "validation", "test"):  # the export wrote the random one
        assert sorted(getattr(dataset, part)) == sorted(getattr(at_random, part))
    assert "split by CelebA's partition" in dataset.about
    (celeba / "list_eval_partition.csv").unlink()
    with pytest.raises(UserError, match=r"has no list_eval_partition\.csv"):
        load_dataset(DataConfig(kind="celeba", path=celeba, split="official"), 32)


@pytest.mark.parametrize("named", ["celeba", "celeba/img_align_celeba"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("png", [False, True])
def test_celeba_in_any_layout_keeps_its_attributes(
    celeba: Path, named: str, nested: bool, png: bool
) -> None:
    images = celeba / "img_align_celeba"
    if png:
        for path in images.iterdir():
            with Image.open(path) as image:
                image.save(path.with_suffix(".png"))
            path.unlink()
    if nested:
        images.rename(celeba / "inner")
        images.mkdir()
        (celeba / "inner").rename(images / "img_align_celeba")
    dataset = load_dataset(DataConfig(kind="celeba", path=celeba.parent / named), 32)
    assert (len(dataset), len(dataset.attribute_names)) == (20, 36)


PHOTOS = Path(os.environ.get("NAS_PHOTOS", "shared/data/photos"))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="set NAS_PHOTOS to a folder of photographs")
def test_photographs_have_near_duplicates() -> None:
    (words,) = duplicates_in_words(load(PHOTOS))
    assert "near duplicates" in words


def test_paths_in_a_file_are_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text("space: tiny\ndata: {kind: folder, path: images}\n")
    assert load_config(str(tmp_path / "study.yaml")).data.path == tmp_path / "images"
    monkeypatch.chdir(tmp_path)
    assert load_config("study.yaml").data.path == tmp_path / "images"
    given = load_config("quickstart", {"data.kind": "folder", "data.path": "images"})
    assert given.data.path == tmp_path / "images"


def stored_study(config: StudyConfig, fingerprint: str) -> dict[str, Any]:
    return {
        "config": config.to_dict(),
        "space_digest": config.load_space().digest,
        "environment": {"data_fingerprint": fingerprint},
    }


def folder_study(path: str) -> StudyConfig:
    return load_config("quickstart", {"data.kind": "folder", "data.path": path})


def test_a_study_of_a_moved_folder_continues_and_of_other_images_does_not() -> None:
    stored, moved = stored_study(folder_study("/before"), "a"), folder_study("/after")
    space = moved.load_space()
    require_same_question(stored, moved, space, {"data_fingerprint": "a"}, Path("x"))
    with pytest.raises(UserError, match="data has the same description, but its content changed"):
        require_same_question(stored, moved, space, {"data_fingerprint": "b"}, Path("x"))


def test_a_study_of_the_first_images_does_not_continue_with_a_sample() -> None:
    config = folder_study("/images")
    stored = stored_study(config, "a")
    del stored["config"]["data"]["fit"]  # as earlier versions stored it
    with pytest.raises(
        UserError, match=r'data\.fit was "squash", now "crop"; data\.subset was "the first by name"'
    ):
        require_same_question(
            stored, config, config.load_space(), {"data_fingerprint": "b"}, Path()
        )
