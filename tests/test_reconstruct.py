"""`nas reconstruct`: images through a trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.checkpoint import save_weights
from nas.vae import build_vae
from search_spaces.references import ORIGINAL
from tests.helpers.command import nas

SMALL = ORIGINAL.resized(16)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder as `nas study best` writes it."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_weights(build_vae(SMALL, seed=0), folder / "weights.safetensors")
    (folder / "architecture.json").write_text(SMALL.to_json())
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    for name, colour in (("a.png", "red"), ("b.jpg", "blue")):
        image = Image.new("RGB", (40, 20), "white")
        image.paste(colour, (10, 0, 30, 20))
        image.save(tmp_path / name, quality=95)
    return [str(tmp_path / name) for name in ("a.png", "b.jpg")]


def test_images_are_shown_above_their_reconstructions(
    model: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = model.parent / "out.png"
    assert nas("reconstruct", str(model), *pictures, "-o", str(out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{pictures[0]}: reconstruction loss ")
    assert lines[2] == f"{out}: 2 images (crop) above their reconstructions"
    with Image.open(out) as sheet:
        assert sheet.size == (32, 32)
        assert sheet.getpixel((2, 8)) == (255, 0, 0)  # the crop has no white border


def test_greys_of_12_bits_are_not_dark(model: Path) -> None:
    levels = np.tile(np.array([0, 4095], np.uint16).repeat(8), (16, 1))
    out, path = model.parent / "out.png", model.parent / "grey.tif"
    Image.fromarray(levels).save(path)
    assert nas("reconstruct", str(model), str(path), "-o", str(out)) == 0
    with Image.open(out) as sheet:
        assert [sheet.getpixel((x, 8)) for x in (2, 13)] == [(0, 0, 0), (255, 255, 255)]


def test_many_images_have_several_rows(model: Path, pictures: list[str]) -> None:
    out = model.parent / "out.png"
    assert nas("reconstruct", str(model), *pictures * 10, "-o", str(out)) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (16 * 16, 2 * 2 * 16)
        assert sheet.getpixel((5 * 16, 40)) == (255, 255, 255)  # there are four in the second row


def test_shape_and_loss_are_those_of_the_study(
    model: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"data": {"kind": "celeba"}, "training": {"ssim": "uniform", "l1_weight": 2.0}}
    (model / "result.json").write_text(json.dumps(told))
    out = model.parent / "out.png"
    assert nas("reconstruct", str(model), pictures[0], "-o", str(out)) == 0
    line, last = capsys.readouterr().out.splitlines()
    assert "(squash)" in last
    with Image.open(out) as sheet:
        assert sheet.getpixel((0, 8)) == (255, 255, 255)
    numbers = [float(part.split()[-1]) for part in line.rpartition(": ")[2].split(", ")]
    assert numbers[0] == pytest.approx(1 - numbers[1] + 2.0 * numbers[2], abs=2e-4)
    assert nas("reconstruct", str(model), pictures[0], "-o", str(out), "--fit", "pad") == 0
    assert "(pad)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{}", "{}/../text.png"], "text.png: cannot be read as an image: no known format"),
        (["{}", "{}"], "model: is a folder; give images, such as "),
        (["{}", "{}/../missing.png"], "missing.png: cannot be read as an image: no ordinary file"),
        (
            ["nowhere", "{}/../a.png"],
            "'nowhere': is neither STUDY#TRIAL, such as quickstart#3",
        ),
        (["none#3", "{}/../a.png"], "none"),
    ],
)
def test_what_is_no_image_or_no_model_is_refused(
    model: Path,
    pictures: list[str],
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (model.parent / "text.png").write_text("text")
    given = [one.format(model) for one in arguments]
    assert nas("reconstruct", *given, "-o", str(model.parent / "out.png")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not (model.parent / "out.png").exists()


def test_weights_of_another_architecture_are_refused(
    model: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "architecture.json").write_text(ORIGINAL.to_json())
    assert nas("reconstruct", str(model), *pictures) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"has the weights of another architecture, {SMALL.digest} instead of" in line
    (model / "weights.safetensors").unlink()
    assert nas("reconstruct", str(model), *pictures) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model: has no weights.safetensors: the model was not trained, or they are gone" in line
    shutil.rmtree(model)
