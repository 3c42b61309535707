"""Rendered faces as a data set: the same pixels everywhere, attributes, and the cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nas.datasets import DataConfig, load_dataset
from nas.datasets.cache import Entry
from nas.faces.attributes import ATTRIBUTE_NAMES, attributes_of
from nas.faces.render import render_faces, render_scene
from nas.faces.sample import sample_scene
from nas.faces.scene import Camera, Glasses, Scene

CELEBA_ATTRIBUTES = """
5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs
Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair
Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair
Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes
No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks
Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat
Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def attribute(scene: Scene, name: str) -> bool:
    return attributes_of(scene)[ATTRIBUTE_NAMES.index(name)]


def photographed(scene: Scene, size: int) -> NDArray[np.int64]:
    """The scene without sensor noise, so that only the drawing can differ."""
    clear = Camera(0.0, 0.0, 1.0, 0.2, 1.0, 0.0)
    return render_scene(replace(scene, camera=clear), size).astype(np.int64)


def test_an_image_does_not_depend_on_the_range_it_is_rendered_in() -> None:
    together = render_faces(5, 0, 12, 48)
    assert np.array_equal(together[7], render_faces(5, 7, 8, 48)[0])
    assert np.array_equal(together[3:9], render_faces(5, 3, 9, 48))


def test_another_process_renders_the_same_pixels() -> None:
    code = "from nas.faces.render import main; main()"
    command = [sys.executable, "-c", code, "5", "2", "5", "40"]
    root = Path(__file__).parents[1]
    raw = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True).stdout
    assert raw == render_faces(5, 2, 5, 40).tobytes()


def test_seeds_and_indices_give_different_people() -> None:
    faces = [*render_faces(0, 0, 8, 32), *render_faces(1, 0, 8, 32)]
    assert len({face.tobytes() for face in faces}) == 16


@pytest.mark.parametrize("size", [32, 48, 96, 100, 144])
def test_any_size_shows_the_same_scene(size: int) -> None:
    face = photographed(sample_scene(2, 1), size)
    assert face.shape == (3, size, size)
    reference = photographed(sample_scene(2, 1), 64)
    assert face.mean(axis=(1, 2)) == pytest.approx(reference.mean(axis=(1, 2)), abs=6)


def test_extreme_scenes_render_without_warnings() -> None:
    scene = sample_scene(0, 0)
    for yaw, pitch, roll in ((0.6, 0.3, 0.3), (-0.6, -0.3, -0.3)):
        pose = replace(scene.pose, yaw=yaw, pitch=pitch, roll=roll, x=0.3 * yaw, scale=1.4)
        with np.errstate(all="raise", under="ignore"):
            assert render_scene(replace(scene, pose=pose), 24).std() > 0


def test_attribute_names_are_celebas() -> None:
    assert len(ATTRIBUTE_NAMES) >= 20
    assert set(ATTRIBUTE_NAMES) <= set(CELEBA_ATTRIBUTES.split())
    assert len(set(ATTRIBUTE_NAMES)) == len(ATTRIBUTE_NAMES)


def test_every_attribute_varies_and_related_ones_agree() -> None:
    scenes = [sample_scene(0, index) for index in range(600)]
    counts: Counter[str] = Counter()
    for scene in scenes:
        has = dict(zip(ATTRIBUTE_NAMES, attributes_of(scene), strict=True))
        counts.update(name for name, value in has.items() if value)
        hair = [has[name] for name in ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")]
        assert sum(hair) == (not has["Bald"])
        assert not (has["No_Beard"] and (has["Mustache"] or has["Goatee"]))
        assert not (has["Straight_Hair"] and has["Wavy_Hair"])
        assert not (has["Wearing_Lipstick"] and has["Mustache"])
    assert all(0 < counts[name] < len(scenes) for name in ATTRIBUTE_NAMES)


def test_attributes_follow_the_scene_and_show_in_the_image() -> None:
    scene = replace(sample_scene(0, 3), glasses=None, earrings="none")
    glasses = Glasses("round", (0.0, 0.0, 0.0), 0.02, 0.15, 0.12, 0.95, 0.0)
    worn = replace(scene, glasses=glasses)
    assert not attribute(scene, "Eyeglasses")
    assert attribute(worn, "Eyeglasses")
    change = np.abs(photographed(scene, 64) - photographed(worn, 64)).max(axis=0)
    rows = np.flatnonzero(change.max(axis=1) > 20)
    assert 20 <= rows.min() <= rows.max() <= 50  # around the eyes and nowhere else
    smiling = replace(scene, mouth=replace(scene.mouth, smile=0.9))
    assert attribute(smiling, "Smiling")
    assert not attribute(replace(scene, mouth=replace(scene.mouth, smile=0.0)), "Smiling")
    assert attribute(replace(scene, camera=replace(scene.camera, blur=0.02)), "Blurry")


def test_blur_removes_detail() -> None:
    scene = sample_scene(0, 3)
    sharp = photographed(scene, 64)
    soft = render_scene(replace(scene, camera=Camera(0.06, 0.0, 1.0, 0.2, 1.0, 0.0)), 64)
    assert np.abs(np.diff(soft.astype(int))).mean() < 0.5 * np.abs(np.diff(sharp)).mean()


def test_a_smaller_count_maps_the_larger_cache(cache: Path) -> None:
    large = load_dataset(DataConfig(count=30), 16)
    written = sorted(cache.iterdir())
    small = load_dataset(DataConfig(count=12), 16)
    assert sorted(cache.iterdir()) == written
    assert np.array_equal(small.images, large.images[:12])
    assert small.fingerprint != large.fingerprint


def test_a_larger_count_keeps_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_dataset(DataConfig(count=12), 16)
    asked: list[tuple[int, int]] = []

    def counted(seed: int, start: int, stop: int, size: int) -> NDArray[np.uint8]:
        asked.append((start, stop))
        return render_faces(seed, start, stop, size)

    monkeypatch.setattr("nas.datasets.faces.render_faces", counted)
    large = load_dataset(DataConfig(count=20), 16)
    assert asked == [(12, 20)]
    assert np.array_equal(large.images[:12], small.images)
    assert np.array_equal(large.images, render_faces(0, 0, 20, 16))


def test_an_interrupted_build_goes_on_where_it_stopped() -> None:
    entry = Entry("interrupted", size=4, labels=1)
    asked: list[int] = []

    def fill(start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        if start == 20 and 20 not in asked:
            asked.append(start)
            raise KeyboardInterrupt
        asked.append(start)
        rows = np.arange(start, stop, dtype=np.uint8)
        pixels = np.broadcast_to(rows[:, None, None, None], (len(rows), 3, 4, 4))
        return pixels, (rows % 2 == 0)[:, None]

    with pytest.raises(KeyboardInterrupt):
        entry.load(30, fill, threads=1, chunk=10)
    before, calls = list(asked), []
    images, labels = entry.load(
        30, fill, threads=1, chunk=10, progress=lambda done, total: calls.append((done, total))
    )
    assert set(asked[len(before) :]).isdisjoint({0, 10})
    assert calls[-1] == (30, 30)
    assert images[:, 0, 0, 0].tolist() == list(range(30))
    assert labels[:, 0].tolist() == [row % 2 == 0 for row in range(30)]


@pytest.mark.slow
def test_processes_that_load_at_once_agree(cache: Path) -> None:
    code = (
        "from nas.datasets.cache import Entry; from nas.faces.render import render_faces;"
        "import hashlib, numpy as np;"
        "fill = lambda start, stop: "
        "(render_faces(0, start, stop, 24), np.ones((stop - start, 1), bool));"
        "images, _ = Entry('faces', 24, 1).load(60, fill, threads=1, chunk=5);"
        "print(hashlib.sha256(images.tobytes()).hexdigest())"
    )
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    running = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    answers = {process.communicate(timeout=120)[0].strip() for process in running}
    assert answers == {hashlib.sha256(render_faces(0, 0, 60, 24).tobytes()).hexdigest()}
    assert not list(cache.glob("*unfinished*"))


def test_many_images_are_rendered_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.datasets.faces._PROCESS_CHUNK", 15)
    monkeypatch.setattr("nas.datasets.faces.logical_cpus", lambda: 2)
    dataset = load_dataset(DataConfig(count=30), 16)
    assert np.array_equal(dataset.images, render_faces(0, 0, 30, 16))
    first = attributes_of(sample_scene(0, 29))
    assert dataset.attributes is not None
    assert tuple(dataset.attributes[29].tolist()) == first
