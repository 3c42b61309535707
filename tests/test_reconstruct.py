"""`nas reconstruct`: images through a trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nas.checkpoint import save_weights
from nas.vae import build_vae
from search_spaces.references import ORIGINAL
from tests.helpers.command import nas


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `study#0` be a model of 16 pixels in this folder."""
    save_weights(build_vae(ORIGINAL.resized(16), seed=0), tmp_path / "weights.safetensors")
    monkeypatch.setattr("studies.cli.reconstruct.find_artefacts", lambda trial, root: tmp_path)
    return tmp_path


def test_images_are_shown_above_their_reconstructions(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (40, 20), colour).save(weights / name)
    paths = [str(weights / name) for name in ("a.png", "b.jpg")]
    assert nas("reconstruct", "study#0", *paths, "-o", str(weights / "out.png")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{paths[0]}: reconstruction loss ")
    assert len(lines) == 3
    with Image.open(weights / "out.png") as sheet:
        assert sheet.size == (32, 32)
        assert sheet.getpixel((4, 4)) == (255, 0, 0)


def test_a_file_that_is_no_image_is_refused(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (weights / "text.png").write_text("text")
    assert nas("reconstruct", "study#0", str(weights / "text.png")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("text.png: cannot be read as an image: no known format")
