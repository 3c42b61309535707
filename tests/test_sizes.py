"""Images whose height and width differ: costs, loading, training, reports and exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from PIL import Image

from nas.artefacts import read_pixels
from nas.checkpoint import save_weights
from nas.datasets import DataConfig, load_dataset
from nas.datasets.decoding import Fit, Shape, decoded
from nas.predict.calibration import Setting, drawn
from nas.predict.cost_model import features
from nas.predict.operations import exact_costs, operations
from nas.protocol import require_fit
from nas.timed_models import TimedImages
from nas.vae import build_vae
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES
from search_spaces.sizes import (
    Size,
    area,
    enlarged,
    parse_size,
    reduced,
    sides,
    size_in_words,
    size_of,
)
from search_spaces.space import SearchSpace
from studies.config.loading import load_config
from studies.launch import run_study
from studies.report.report import write_report
from tests.fakes.dataset import noise
from tests.helpers.command import nas
from tests.helpers.narrow import NARROW


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("size", "text", "pixels"), [(144, "144", 20736), ((144, 96), "144x96", 13824)]
)
def test_a_size_has_one_spelling(size: Size, text: str, pixels: int) -> None:
    assert size_of(*sides(size)) == size == parse_size(text)
    assert (size_in_words(size), area(size)) == (text, pixels)
    assert reduced(size, 48) == {144: 3, (144, 96): (3, 2)}[size]
    assert reduced(size, 50) == {144: 3, (144, 96): (3, 2)}[size]  # rounded up
    assert enlarged(size, 2) == {144: 288, (144, 96): (288, 192)}[size]


@pytest.mark.parametrize("text", ["", "x", "144x", "x96", "144x96x3", "144X96", "-1", "1e2", "٣"])
def test_other_texts_are_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize("space", ["quickstart@24x40", "wide@64x70"])
@pytest.mark.slow
def test_costs_are_those_that_fvcore_counts(space: str) -> None:
    """fvcore runs the built model; its other operators are no multiply-adds."""
    for number, architecture in enumerate(drawn(SearchSpace.load(space), seed=3)):
        model = build_vae(architecture, seed=0).eval()
        with torch.no_grad(), torch.random.fork_rng():
            counted = FlopCountAnalysis(model, torch.rand(1, *architecture.image_shape))
            counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            macs = sum(counted.by_operator()[name] for name in ("conv", "linear", "addmm"))
        costs = exact_costs([architecture])
        assert costs["macs"][0] == macs
        assert costs["params"][0] == sum(one.numel() for one in model.parameters())
        if number == 2:
            return


def test_the_predictor_sees_the_area_of_a_map() -> None:
    """A pass over 72 x 32 pixels costs what one over 48 x 48 costs: the same areas, all even."""
    stage = {"width": 8, "layers": 2}
    described = {
        "image_size": 48,
        "encoder": {"stages": [stage]},
        "decoder": {"seed_width": 8, "stages": [stage]},
    }
    square = type(ORIGINAL).from_dict(described)
    first, second = operations(square), operations(square.resized((72, 32)))
    assert np.allclose(features(first, 1), features(second, 1))
    odd = features(operations(square.resized((71, 32))), 1)
    assert odd[:, 9].tolist() != features(second, 1)[:, 9].tolist()


def test_a_calibration_names_its_size() -> None:
    setting = Setting(image_size=(96, 64))
    assert "96x64 pixels" in setting.words
    assert "--space wide@96x64 " in setting.remedy


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Sixty columns of 40 rows: a third red, a third green, a third blue."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    for channel in range(3):
        pixels[:, 20 * channel : 20 * (channel + 1), channel] = 255
    path = tmp_path / "stripes.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize(
    ("fit", "size", "red", "green"),
    [
        # A crop to half the width keeps the central 20 columns, which are green.
        ("crop", (40, 20), 0.0, 1.0),
        ("crop", (20, 60), 1 / 3, 1 / 3),
        ("squash", (40, 20), 0.3, 0.3),
        # The picture takes 20 x 13 pixels of 40 x 20; above and below it is white.
        ("pad", (40, 20), 0.1, 0.1),
    ],
)
def test_a_picture_gets_the_proportions(
    picture: Path, fit: Fit, size: tuple[int, int], red: float, green: float
) -> None:
    pixels = decoded(picture, Shape(size, fit=fit)).pixels
    assert pixels.shape == (3, *size)
    pure = [(pixels[channel] > 250) & (pixels.sum(axis=0) < 260) for channel in (0, 1)]
    assert pure[0].mean() == pytest.approx(red, abs=0.05)
    assert pure[1].mean() == pytest.approx(green, abs=0.05)


def test_a_photograph_on_its_side_is_upright_first(tmp_path: Path) -> None:
    """A JPEG of 1,200 x 800 that EXIF rotates is 800 x 1,200, decoded at half its size or more."""
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    pixels = np.zeros((800, 1200, 3), np.uint8)
    pixels[:, :600] = 255
    Image.fromarray(pixels).save(tmp_path / "side.jpg", exif=exif, quality=95)
    upright = decoded(tmp_path / "side.jpg", Shape((96, 64), fit="squash"))
    assert upright.pixels.shape == (3, 96, 64)
    assert upright.pixels[:, :46].min() > 250
    assert upright.pixels[:, 50:].max() < 5
    assert not upright.enlarged
    assert decoded(tmp_path / "side.jpg", Shape((1201, 64))).enlarged


@pytest.mark.parametrize("channels", [1, 3])
def test_faces_are_the_central_part_of_square_ones(channels: int) -> None:
    whole = load_dataset(DataConfig(count=10), 24, channels=channels)
    upright = load_dataset(DataConfig(count=10), (24, 16), channels=channels)
    flat = load_dataset(DataConfig(count=10), (10, 24), channels=channels)
    assert np.array_equal(upright.images, whole.images[..., 4:20])
    assert np.array_equal(flat.images, whole.images[:, :, 7:17])
    assert len({one.fingerprint for one in (whole, upright, flat)}) == 3


def test_too_short_a_side_is_refused() -> None:
    with pytest.raises(UserError, match=r"image_size: 64x7 is too small for a face"):
        load_dataset(DataConfig(count=10), (64, 7))


def test_images_of_the_wrong_proportions_do_not_fit() -> None:
    require_fit(ORIGINAL.resized((32, 16)), noise(20, (32, 16)))
    with pytest.raises(UserError, match=r"images of \(3, 16, 32\), .* for \(3, 32, 16\)"):
        require_fit(ORIGINAL.resized((32, 16)), noise(20, (16, 32)))


def test_timed_images_have_the_shape_of_the_architecture() -> None:
    fitted = TimedImages.noise(16).fit(MODIFIED.resized((32, 16), 1))
    assert fitted.pixels.shape[1:] == (1, 32, 16)


@pytest.mark.slow
@patch.dict(REFERENCES, NARROW)
def test_a_study_of_upright_images(tmp_path: Path) -> None:
    quick = {"min_rounds": 2, "max_rounds": 2, "attempts": 1, "warmup_window": 1, "max_warmup": 2}
    settings: dict[str, Any] = {
        "space": "tiny@32x20",
        "name": "upright",
        "data.count": 24,
        "training.epochs": 1,
        "search.trials": 1,
        "objectives": ["reconstruction_loss", "params", "macs", "latency_ms"],
        "latency": quick,
        "confirmation": None,
        "device": "cpu",
        "workers": 1,
        "threads": 1,
    }
    config = load_config("quickstart", settings)
    record, _ = run_study(config, tmp_path / "studies")
    assert [trial.state for trial in record.trials] == ["complete"] * 3
    assert record.image_size == (32, 20)
    assert {trial.architecture.image_shape for trial in record.trials} == {(3, 32, 20)}
    pixels = read_pixels(record.reconstructions(record.trials[0]))
    assert pixels is not None
    assert pixels.shape[1:] == (3, 32, 20)
    assert record.measured_together
    assert "32x20 px" in write_report(record).read_text(encoding="utf-8")
    resumed, _ = run_study(config, tmp_path / "studies")
    assert len(resumed.trials) == 3


def test_the_commands_take_height_and_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet, size = tmp_path / "sheet.png", ("--size", "24x16")
    shape = ("--rows", "2", "--columns", "3")
    assert nas("data", "preview", *size, *shape, "-o", str(sheet)) == 0
    with Image.open(sheet) as image:
        assert image.size == (3 * 18 + 2, 2 * 26 + 2)
    assert nas("data", "export", "faces", str(tmp_path / "out"), *size, "--count", "10") == 0
    with Image.open(tmp_path / "out" / "img_align_celeba" / "000001.jpg") as image:
        assert image.size == (16, 24)
    assert nas("space", "show", "tiny@32x20") == 0
    printed = capsys.readouterr().out
    assert "32x20 pixels" in printed
    assert "fixed image_size: 32x20" in printed
    save_weights(build_vae(ORIGINAL.resized((32, 16)), seed=0), tmp_path / "weights.safetensors")
    assert nas("reconstruct", str(tmp_path), str(sheet), "-o", str(tmp_path / "rebuilt.png")) == 0
    with Image.open(tmp_path / "rebuilt.png") as image:
        assert image.size == (16, 64)


@pytest.mark.slow
def test_an_export_has_the_shape(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    assert nas("export", "original@32x16", "--untrained", "--onnx", str(path)) == 0
    dims = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims][1:] == [3, 32, 16]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("data", "preview", "--size", "24x"), "'24x' is no size; give one such as 144 or 144x96."),
        (("data", "preview", "--size", "24x4"), "24x4: a side has 8 to 1024 pixels."),
        (("space", "show", "tiny@32x2"), "tiny@32x2: fixed.image_size: Input should be greater"),
        (("space", "show", "wide@144x16"), "encoder.depth: at most 4 stages fit 144x16 pixels"),
        (("export", "original@32x8", "--onnx", "m.onnx"), "4 stages halve 32x8 pixels below one"),
    ],
)
def test_unsuitable_sizes_are_refused(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas(*arguments) == 2
    assert told in capsys.readouterr().err


def test_an_architecture_file_of_earlier_versions_is_read(tmp_path: Path) -> None:
    described = {**ORIGINAL.to_dict(), "image_size": 144}
    (tmp_path / "a.json").write_text(json.dumps(described))
    assert type(ORIGINAL).load(tmp_path / "a.json").digest == "9659a6772217"
