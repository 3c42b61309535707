"""Decode pictures of every format and of every kind of damage, without starting a program."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from nas.datasets import DataConfig, decoding, load_dataset
from nas.datasets.decoding import (
    Shape,
    UnreadableError,
    decoded,
    decoded_at,
    fitted,
    opened,
    quiet_decoders,
    reason,
)
from search_spaces.errors import UserError

FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpg": ("RGB", "JPEG", {"quality": 95}),
    "jfif": ("L", "JPEG", {"progressive": True}),
    "png": ("RGBA", "PNG", {}),
    "webp": ("RGB", "WEBP", {"lossless": True}),
    "bmp": ("RGB", "BMP", {}),
    "tif": ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    "tiff": ("L", "TIFF", {"compression": "jpeg"}),
    "gif": ("P", "GIF", {}),
    "avif": ("RGB", "AVIF", {}),
    "jp2": ("RGB", "JPEG2000", {}),
    "ppm": ("RGB", "PPM", {}),
    "pgm": ("L", "PPM", {}),
}
if not features.check("avif"):
    del FORMATS["avif"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))


def gradient(width: int = 24, height: int = 24) -> Image.Image:
    across = np.linspace(40, 200, width)[None].repeat(height, 0)
    down = np.linspace(40, 200, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([across, down, 240 - across], -1).astype(np.uint8))


def content(ending: str) -> bytes:
    mode, kind, options = FORMATS[ending]
    file = io.BytesIO()
    gradient().convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_is_read_whatever_its_name(tmp_path: Path, ending: str) -> None:
    (tmp_path / "picture.txt").write_bytes(content(ending))
    found = decoded(tmp_path / "picture.txt", Shape(12)).pixels
    expected = gradient().resize((12, 12), Image.Resampling.BILINEAR)
    grey = FORMATS[ending][0] == "L"
    wanted = np.asarray(expected.convert("L").convert("RGB") if grey else expected)
    assert np.abs(found.astype(int) - wanted.transpose(2, 0, 1)).mean() < 12


def test_every_ending_is_found_in_a_folder(tmp_path: Path) -> None:
    for ending in FORMATS:
        (tmp_path / f"picture.{ending.upper()}").write_bytes(content(ending))
    for name in ("Thumbs.db", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(content("png"))
    for folder in ("__MACOSX", ".ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "picture.png").write_bytes(content("png"))
    assert len(load_dataset(DataConfig(kind="folder", path=tmp_path), 8)) == len(FORMATS)


def test_mutated_files_neither_escape_nor_start_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, refused)
    for name in ("system", "posix_spawn", "fork"):
        monkeypatch.setattr(os, name, refused)
    draw, files = random.Random(0), 0
    for ending in FORMATS:
        whole = content(ending)
        for kind in range(30):
            (tmp_path / f"{kind:02}.{ending}").write_bytes(mutated(whole, kind, draw))
            files += 1
    assert files >= 300
    config = DataConfig(kind="folder", path=tmp_path, max_unreadable=0.99)
    dataset = load_dataset(config, 8)
    assert 10 <= len(dataset) < files
    assert len(dataset) + len(dataset.skipped) == files
    assert dataset.unreadable is not None
    lines = dataset.unreadable.read_text().splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(dataset.skipped)
    assert all(line.partition(": ")[2] for line in lines)
    assert capfd.readouterr() == ("", "")


def mutated(whole: bytes, kind: int, draw: random.Random) -> bytes:
    """Return a file that is cut, has other bytes, other numbers in its header, or a foreign one."""
    if kind < 8:
        return whole[: draw.randrange(len(whole))]
    if kind < 20:
        changed = bytearray(whole)
        for _ in range(1 + kind % 4):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)
    if kind < 26:
        start = draw.randrange(min(64, len(whole) - 4))
        return whole[:start] + b"\xff" * 4 + whole[start + 4 :]
    heads = (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"DDS ", b"\x00\x00\x01\xb3", b"GIF89a")
    head = heads[kind % 4]
    return head + whole[len(head) :]


def why_unreadable(path: Path) -> str:
    try:
        with quiet_decoders():
            decoded(path, Shape(8))
    except Exception as error:
        return reason(error)
    raise AssertionError(f"{path} was read")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [(b"", "empty"), (EPS, "no known format"), (b"text", "no known format"),
     (b"P6 20000 20000 255\n", "more than 178 million pixels"),
     (content("jpg")[:300], r"damaged \(.*Truncated.*\)")],
)  # fmt: skip
def test_the_reason_is_a_short_text(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "picture.jpg").write_bytes(data)
    found = why_unreadable(tmp_path / "picture.jpg")
    assert re.fullmatch(why, found)
    assert len(found) < 130


@pytest.mark.parametrize(("most", "bits"), [(255, 8), (1000, 10), (4095, 12), (16_000, 14)])
def test_greys_are_scaled_by_the_range_of_the_folder(tmp_path: Path, most: int, bits: int) -> None:
    for number in range(12):
        levels = np.full((8, 8), most * (number + 1) // 12, np.uint16)
        Image.fromarray(levels).save(tmp_path / f"{number}.png")
    found = load_dataset(DataConfig(kind="folder", path=tmp_path), 8).images.max()
    assert found == round(most * 255 / (2**bits - 1))
    stated = load_dataset(DataConfig(kind="folder", path=tmp_path, grey_bits=16), 8)
    assert stated.images.max() == round(most * 255 / 65535)


def test_levels_above_the_stated_range_are_unreadable(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="12 of 12 images cannot be read") as error:
        load_dataset(DataConfig(kind="folder", path=tmp_path, grey_bits=12), 8)
    listed = Path(str(error.value).rpartition(": ")[2])
    assert listed.read_text().splitlines()[0] == "0.png: levels above 4095; set data.grey_bits"


def test_the_orientation_of_exif_is_applied_and_damaged_exif_ignored(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    wide = gradient(40, 20)
    wide.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    wide.save(tmp_path / "damaged.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95)
    tall = np.asarray(wide.transpose(Image.Transpose.ROTATE_270).resize((8, 8)))
    plain = np.asarray(wide.resize((8, 8)))
    for name, expected in (("turned", tall), ("damaged", plain)):
        with quiet_decoders():
            found = decoded(tmp_path / f"{name}.jpg", Shape(8)).pixels.transpose(1, 2, 0)
        assert np.abs(found.astype(int) - expected).mean() < 6


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    gradient(1600, 1200).save(tmp_path / "large.jpg", quality=95)
    with opened(tmp_path / "large.jpg") as image:
        image.draft(None, (2 * 64, 2 * 64))
        assert image.size == (200, 150)
    found = decoded(tmp_path / "large.jpg", Shape(64)).pixels.astype(int)
    with Image.open(tmp_path / "large.jpg") as image:
        whole = np.asarray(fitted(image, 64, "squash")).transpose(2, 0, 1)
    assert np.abs(found - whole).mean() < 1


@pytest.mark.slow
def test_shapes_of_one_fraction_share_a_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.jpg"
    gradient(3200, 2400).save(path, quality=95)
    shapes = [Shape(64), Shape(144, fit="crop"), Shape((600, 300)), Shape(64, channels=1)]
    alone = [decoded(path, shape).pixels for shape in shapes]
    loaded = list[tuple[int, int]]()

    def noted(image: Image.Image) -> Image.Image:
        loaded.append(image.size)
        return upright(image)

    upright = decoding._upright
    monkeypatch.setattr(decoding, "_upright", noted)
    together = decoded_at(path, shapes)
    assert loaded == [(400, 300), (1600, 1200)]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.pixels, other)


@pytest.mark.parametrize(
    ("fit", "corner", "centre"),
    [("squash", [255, 0, 0], [0, 255, 0]), ("crop", [0, 255, 0], [0, 255, 0]),
     ("pad", [255, 255, 255], [0, 255, 0])],
)  # fmt: skip
def test_a_wide_picture_becomes_a_square(fit: Any, corner: list[int], centre: list[int]) -> None:
    wide = Image.new("RGB", (90, 30), (255, 0, 0))
    wide.paste((0, 255, 0), (30, 0, 60, 30))
    pixels = np.asarray(fitted(wide, 30, fit))
    assert pixels[0, 0].tolist() == corner
    assert pixels[15, 15].tolist() == centre


def test_one_channel_is_the_luma_and_grey_is_recognised(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / "colour.png")
    Image.new("L", (8, 8), 70).save(tmp_path / "grey.png")
    colour = decoded(tmp_path / "colour.png", Shape(8, channels=1))
    grey = decoded(tmp_path / "grey.png", Shape(8, channels=1))
    assert (colour.pixels.shape, colour.pixels.max(), colour.grey) == ((1, 8, 8), 124, False)
    assert (grey.pixels.max(), grey.grey, grey.enlarged) == (70, True, False)
    assert decoded(tmp_path / "grey.png", Shape(9)).enlarged


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UnreadableError, match="no ordinary file"):
        opened(tmp_path / "pipe.png")


ODD = Path(os.environ.get("NAS_ODD_FILES", "shared/data/odd_files"))


@pytest.mark.skipif(not ODD.is_dir(), reason="set NAS_ODD_FILES to a folder of damaged pictures")
def test_odd_files_are_unreadable() -> None:
    assert len([why_unreadable(path) for path in ODD.iterdir()]) == 6
