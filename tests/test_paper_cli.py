"""`nas paper` as a user sees it: real runs with a tiny budget."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from search_spaces.references import REFERENCES
from studies.paper import examination, timing
from studies.paper.timing import Timing
from studies.store.store import StudyStore
from tests.helpers.command import nas
from tests.helpers.widths import whole_at_every_width

TINY = ["paper", "--size", "32", "--images", "100", "--epochs", "1", "--threads", "1"]
TINY += ["--device", "cpu", "--name", "p", "--attribute", "Brown_Hair"]
for _setting in ("max_rounds=2", "min_rounds=2", "attempts=1", "max_warmup=2", "warmup_window=1"):
    TINY += ["--set", f"latency.{_setting}"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the command was run once."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NAS_CACHE_DIR", str(folder / "cache"))
        assert nas(*TINY) == 0
        yield folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    monkeypatch.setenv("NAS_CACHE_DIR", str(made / "cache"))
    return made / "nas-studies" / "p"


def test_both_models_are_trained_measured_and_shown(here: Path) -> None:
    study = StudyStore.open(here.parent, "p").record()
    assert list(study.references) == ["original", "modified"]
    assert len(study.trials) == 2
    page = (here / "paper.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") >= 20
    assert "rendered faces instead of CelebA, 100 images instead of 20,000" in page
    assert (here / "paper" / "attribute-Brown_Hair-modified.safetensors").is_file()
    assert '<section id="attributes">' in page
    for batch in (1, 32):
        text = (here / "paper" / f"latency-{batch}.json").read_text(encoding="utf-8")
        found = Timing.model_validate_json(text)
        assert found.batch == batch
        assert found.median_ms["modified"] > found.median_ms["original"] > 0
        assert found.papers_ms["original"][0] > 0


def test_the_same_command_only_writes_the_page_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("done before")

    monkeypatch.setattr(examination, "load_vae", never)
    monkeypatch.setattr(timing, "_measured", never)
    before = (here / "paper.html").read_bytes()
    (here / "paper.html").unlink()
    assert nas(*TINY) == 0
    assert (here / "paper.html").read_bytes() == before


def test_the_claims_are_whole_at_every_width(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_at_every_width(lambda: nas(*TINY), capsys, monkeypatch)


def test_another_dimension_costs_its_traversal_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "studies.paper.traversal.dimension_effects", lambda *_: pytest.fail("done before")
    )
    monkeypatch.setattr("studies.paper.inference.examine", lambda *_: pytest.fail("done before"))
    assert nas(*TINY, "--dimension", "7", "--dimension", "9") == 0
    page = (here / "paper.html").read_text(encoding="utf-8")
    assert "dimension 7" in page
    assert "dimension 9" in page


def test_an_estimate_ends_without_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["other" if text == "p" else text for text in TINY] + ["--estimate"]
    assert nas(*other) == 0
    assert "this will take about" in capsys.readouterr().out
    assert not (here.parent / "other").exists()
    assert nas(*TINY, "--estimate") == 0
    assert "both models are trained" in capsys.readouterr().out


def test_too_few_images_are_refused_before_the_pace_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("studies.paper.redraw.measure_pace", lambda *_: pytest.fail("measured"))
    assert nas("paper", "--folder", ".", "--size", "32", "--epochs", "1") == 2
    assert "3 usable images, but at least 10 are needed" in capsys.readouterr().err
    assert not (tmp_path / "nas-studies").exists()


def test_missing_weights_are_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = REFERENCES["modified"].resized(32).digest
    weights = here / "artefacts" / digest / "weights.safetensors"
    aside = weights.rename(here / "aside")
    assert nas(*TINY) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert f"{weights.relative_to(here.parent.parent)}: missing, but needed to examine" in printed
    aside.rename(weights)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--dimension", "128"], ["--dimension 128", "choose 0 to 127"]),
        (["--attribute", "Eyeglases"], ["--attribute Eyeglases", "did you mean 'Eyeglasses'"]),
        (["--celeba", "nowhere"], ["nowhere", "does not exist"]),
        (["--epochs", "0"], ["training.epochs"]),
    ],
)
def test_refusals_come_before_any_training(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_CACHE_DIR", str(made / "cache"))
    monkeypatch.setattr("studies.cli.paper._print_estimate", lambda *_: None)  # it takes seconds
    assert nas(*TINY, *options) == 2
    printed = capsys.readouterr().err
    assert all(part in printed for part in parts), printed
    assert not (tmp_path / "nas-studies").exists()
