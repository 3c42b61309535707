"""Models that have not learned: how they are judged, and that no result rests on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.scale import Setting, grow
from nas.datasets import ImageDataset
from nas.floors import Floors, compute_floors
from nas.protocol import TrainingConfig, evaluate
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from studies.config.loading import load_config
from studies.paper import claims, words
from studies.paper.page import write_paper
from studies.record.comparison import champion, compare, dominators
from studies.record.floor_words import against_mean, against_pca
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import (
    compared_members,
    dominance_table,
    study_headline,
    study_notes,
    trials_table,
)
from studies.report.figure_tables import floor_lines, hover, hypervolume_table, points_table
from studies.report.figures import pair_figure
from studies.report.report import write_report
from studies.run import floors as run_floors
from studies.run.floors import record_floors
from studies.store.store import StudyStore
from tests.fakes.dataset import noise
from tests.fakes.floors import floors
from tests.fakes.paper import results
from tests.fakes.records import study, trial, with_findings
from tests.fakes.study import fake_study
from tests.helpers.command import nas
from tests.helpers.page import Page

RESULTS = Path(__file__).parents[1] / "studies" / "results"
FLOORS = floors(0.6, {128: 0.4}, {512: "it needs 513 training images, and there are 280"})


def judged(*trials: TrialRecord, by: Floors | None = FLOORS) -> StudyRecord:
    return replace(study(*trials), floors=by)


def trained(loss: float = 0.5, **metrics: float) -> TrialRecord:
    return with_findings(trial(2, loss, 500), metrics=metrics)


MIXED = judged(
    trial(0, 0.5, 1000, "original"),
    trial(1, 0.7, 800, "modified"),
    trial(2, 0.45, 500),
    trial(3, 0.65, 10),
    trial(4, 0.48, 900),
)
"""`modified` and #3 have not learned; #2 dominates all others, #3 is the smallest."""


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (trained(0.599), None),
        (trained(0.6), "its loss, 0.6000, is not below that of the mean training image, 0.6000"),
        (trained(0.5, variation=0.011, kl=1.0), None),
        (trained(0.5, variation=0.009), "its reconstructions have 0.9 % of the images' variance"),
        (trained(0.5, kl=0.99), "its KL divergence is 0.99 nats, less than one"),
        (trial(2, None, 500, state="failed"), None),
        (replace(trained(0.7), state="rejected"), None),
        (trial(2, None, 500), None),
    ],
)  # fmt: skip
def test_a_model_has_learned_if_it_beats_the_mean_image_and_uses_its_latent(
    one: TrialRecord, reason: str | None
) -> None:
    assert judged(one).unlearned(one) == reason


def test_a_study_without_floors_judges_by_what_it_recorded() -> None:
    assert judged(trained(9.0), by=None).unlearned(trained(9.0)) is None
    assert judged(trained(), by=None).unlearned(trained(0.1, kl=0.5)) is not None


class _Stand(nn.Module):
    """A model that rebuilds each image exactly, or gives one picture for all."""

    def __init__(self, picture: Tensor | None) -> None:
        super().__init__()
        self.picture, self.architecture = picture, ORIGINAL.resized(16)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor, _eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rebuilt = images if self.picture is None else self.picture.expand_as(images)
        latent = torch.zeros(len(images), 128)
        return rebuilt, latent + 1, latent


def _result_of(model: Any, data: ImageDataset, config: TrainingConfig) -> TrialRecord:
    quality = evaluate(model, data, data.validation, config).values
    return trained(quality.pop("reconstruction"), **quality)


def test_the_identity_has_learned_and_the_mean_image_has_not() -> None:
    data, config = noise(40, 16), TrainingConfig()
    found = compute_floors(data, config, [4, 128])
    mean = torch.from_numpy(data.images[data.train].mean(axis=0) / 255).float()
    identity, constant = (_result_of(_Stand(one), data, config) for one in (None, mean))
    record = judged(identity, by=found)
    assert record.unlearned(identity) is None
    assert against_mean(record, identity).endswith("% below the mean training image")
    assert constant.objectives["reconstruction_loss"] == pytest.approx(found.mean.reconstruction)
    worse = found.mean.reconstruction * (1 + 1e-5)
    assert record.unlearned(trained(worse)) is not None


def test_what_has_not_learned_is_on_no_front_and_in_no_claim() -> None:
    assert [one.number for one in MIXED.complete] == [0, 1, 2, 3, 4]
    assert [one.number for one in MIXED.learned] == [0, 2, 4]
    assert [one.number for one in MIXED.front] == [2]
    assert list(MIXED.references) == ["original", "modified"]
    assert list(MIXED.yardsticks) == ["original"]
    assert compared_members(MIXED) == (MIXED.trial(2),)
    original, modified = MIXED.references.values()
    assert [one.number for one in dominators(MIXED, original)] == [2, 4]
    assert dominators(MIXED, modified) == ()
    assert not compare(MIXED, MIXED.trial(2), modified).dominates
    best = champion(judged(original, MIXED.trial(3), MIXED.trial(4)), original)
    assert best is not None
    assert best.number == 4
    assert champion(judged(original, MIXED.trial(3)), original) is None
    assert list(dominance_table(MIXED).index) == ["original"]
    assert dominance_table(MIXED).loc["original", "better_in_2"] == 2


def test_the_same_trials_are_all_judged_without_floors() -> None:
    record = replace(MIXED, floors=None)
    assert record.learned == record.complete
    assert [one.number for one in record.front] == [2, 3]
    assert len(dominators(record, record.references["modified"])) == 2


def test_headline_and_note_tell_who_has_not_learned() -> None:
    assert study_headline(MIXED) == (
        "2 of 3 architectures found dominate `original` in both objectives (`modified` has not "
        "learned), by losses of one training each, not confirmed; the best, #2, has 2.0x fewer "
        "parameters at 10 % lower reconstruction loss."
    )
    note = next(one for one in study_notes(MIXED) if "not learned" in one)
    assert note.startswith(
        "2 of 5 models have not learned: `modified`, #3 (no better than the mean training image, "
        "whose loss is 0.6000)."
    )
    assert "more epochs" in note
    assert not any("not learned" in one for one in study_notes(replace(MIXED, floors=None)))


def test_the_note_tells_what_the_models_had_and_each_kind_of_reason() -> None:
    record = judged(trained(0.5, kl=0.1), trial(3, 0.7, 5), with_findings(trial(4, 0.5, 5),
                    metrics={"variation": 0.0}))  # fmt: skip
    record = replace(
        record, config={"training": {"epochs": 3}}, environment={"images": {"train": 280}}
    )
    note = study_notes(record)[-1]
    assert "#2 (KL divergence below one nat)" in note
    assert "#4 (nearly the same reconstruction for every image)" in note
    assert note.endswith("this one has 3 epochs and 280 training images.")


def test_headlines_where_nothing_has_learned() -> None:
    original, modified = MIXED.references.values()
    assert study_headline(judged(original, MIXED.trial(3))) == (
        "None of 1 architecture found has learned, so there is no result to compare."
    )
    assert study_headline(judged(modified, MIXED.trial(2), MIXED.trial(3))) == (
        "1 of 2 architectures found are on the front; no reference model has learned, so there is "
        "nothing to compare them with."
    )


def test_losses_are_compared_with_the_pca_of_the_latent_size() -> None:
    record = judged()
    assert against_pca(record, trained(0.38)) == "beats PCA of its latent size (128) by 5.0 %"
    assert against_pca(record, trained(0.44)) == "is 10 % above PCA of its latent size (128)"
    assert against_mean(record, trained(0.54)) == "is 10 % below the mean training image"
    assert against_mean(record, trained(0.66)) == "is 10 % above the mean training image"
    large = replace(trained(), architecture=ORIGINAL.model_copy(update={"latent_size": 512}))
    assert against_pca(record, large) == (
        "there is no PCA of its latent size (512): it needs 513 training images, and there are 280"
    )
    assert against_pca(judged(by=None), trained()) == ""
    on_test = judged(by=FLOORS.on("test"))
    assert against_pca(on_test, trained(0.484)) == "is 10 % above PCA of its latent size (128)"


@pytest.mark.slow
def test_tables_and_plots_show_the_floors(tmp_path: Path) -> None:
    sizes = {32: 0.3, 64: 0.25, 128: 0.2, 256: 0.15}
    record = replace(fake_study(tmp_path), floors=floors(0.66, sizes))
    lines = floor_lines(record, "reconstruction_loss")
    assert next(iter(lines)) == "mean image"
    assert 2 <= len(lines) <= 3
    assert floor_lines(record, "params") == {}
    points = points_table(record)
    x, y = record.objectives[1], record.objectives[0]
    drawn = pair_figure(points, x, y, {y.name: lines}).layout.shapes
    assert {one.label.text: one.y0 for one in drawn} == lines
    assert {one.yref for one in drawn} == {"y"}
    turned = pair_figure(points, y, x, {y.name: lines}).layout.shapes
    assert {one.label.text: one.x0 for one in turned} == lines
    text = Page(write_report(record).read_text(encoding="utf-8")).text
    assert "mean image" in text
    assert "PCA n: images rebuilt from n principal components of 280 training images" in text
    member = record.front[0]
    assert against_pca(record, member) in hover(record, member)


@pytest.mark.slow
def test_the_report_marks_what_has_not_learned(tmp_path: Path) -> None:
    plain = fake_study(tmp_path)
    losses = sorted(one.objectives["reconstruction_loss"] for one in plain.complete)
    original, modified = plain.references.values()
    limit = modified.objectives["reconstruction_loss"]
    assert original.objectives["reconstruction_loss"] < limit < losses[-1]
    record = replace(plain, floors=floors(limit))
    kinds = points_table(record).set_index("name")["kind"]
    dropped = {one.name for one in record.complete if one.objectives["reconstruction_loss"] > limit}
    assert {name for name, kind in kinds.items() if kind == "has not learned"} == dropped
    text = Page(write_report(record).read_text(encoding="utf-8")).text
    assert "has not learned, so nothing is compared with it" in text
    assert "against modified" not in text
    assert f"{len(dropped) + 1} of {len(record.complete)} models have not learned" in text
    worst = max(record.complete, key=lambda one: one.objectives["reconstruction_loss"])
    assert "has not learned: its loss" in hover(record, worst)
    volume = hypervolume_table(record)["hypervolume"].iloc[-1]
    only = replace(plain, trials=tuple(t for t in plain.trials if not record.unlearned(t)))
    assert replace(only, known=None).front == record.front
    assert 0 < volume <= hypervolume_table(plain)["hypervolume"].iloc[-1]
    table = trials_table(record).set_index("number")["unlearned"]
    assert table[table.notna()].index.tolist() == [
        one.number for one in record.complete if record.unlearned(one)
    ]


def test_a_report_where_nothing_has_learned_can_be_written(tmp_path: Path) -> None:
    record = replace(fake_study(tmp_path), floors=floors(0.01))
    assert record.front == ()
    text = Page(write_report(record).read_text(encoding="utf-8")).text
    assert "has learned, so there is no result to compare" in text
    assert "No reference model has learned" in text


@pytest.mark.slow
def test_the_paper_judges_no_claim_from_models_that_have_not_learned(tmp_path: Path) -> None:
    made = results(tmp_path)
    record = replace(made.study, floors=floors(0.4, {128: 0.3}))
    found = claims.claims(replace(made, study=record))
    verdicts = {one.key: one.verdict for one in found}
    assert {key for key, one in verdicts.items() if one == "not judged"} == {
        "quality", "smoothness", "clusters",
    }  # fmt: skip
    assert verdicts["parameters"] == verdicts["slower-1"] == "holds"
    quality = next(one for one in found if one.key == "quality")
    assert quality.found.startswith("not judged: `original` has not learned (its loss, 0.4000,")
    assert "`modified` has not learned" in quality.found
    assert words.paper_headline(found).endswith("is not judged: a model has not learned.")
    assert words.tally(found) == "3 of 6 statements hold, 3 are not judged"
    page = write_paper(replace(made, study=record)).read_text(encoding="utf-8")
    assert "not judged: <code>original" in page or "not judged: `original`" in page
    assert "0.3300" in page  # PCA 128 on the test images
    learned = replace(made, study=replace(made.study, floors=floors(0.5)))
    assert "not judged" not in {one.verdict for one in claims.claims(learned)}


def _store(root: Path) -> StudyStore:
    grow(Setting(root, None, trials=8, epochs=2))
    return StudyStore.open(root, "scale")


def test_floors_are_stored_and_read_again(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert store.record().floors is None
    assert store.floors_source is None
    store.set_floors({"data": "0123"}, FLOORS)
    again = StudyStore.open(tmp_path, "scale")
    assert again.record().floors == FLOORS
    assert again.floors_source == {"data": "0123"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("validation", "mean", "reconstruction"), "0.6"),
        (("test", "pca"), {"x": {}}),
        (("test", "pca", "128", "ssim"), float("nan")),
        (("fitted_on",), -1),
        (("absent",), None),
    ],
)
def test_damaged_floors_are_refused_in_one_line(
    place: tuple[str, ...], value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _store(tmp_path)
    store.set_floors({}, FLOORS)
    stored = json.loads(json.dumps(store.study.user_attrs["floors"]))
    held = stored
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = value
    store.study.set_user_attr("floors", stored)
    assert nas("study", "show", "scale", "--root", str(tmp_path)) == 2
    error = capsys.readouterr().err.strip()
    assert f"damaged (floors.{'.'.join(place)}" in error
    assert "\n" not in error


def test_floors_are_computed_once_for_images_and_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = _store(tmp_path), list[list[int]]()

    def counted(data: ImageDataset, config: TrainingConfig, sizes: list[int], _: object) -> Floors:
        calls.append(sizes)
        return FLOORS

    monkeypatch.setattr(run_floors, "compute_floors", counted)
    space, config = SearchSpace.load("table"), load_config("quickstart", {})

    def prepare(data: ImageDataset, ssim: str = "gaussian") -> None:
        changed = config.training.model_copy(update={"ssim": ssim})
        asked = config.model_copy(update={"training": changed})
        from studies.launch import _no_bar

        record_floors(store, data, asked, space, _no_bar)

    data = noise(20, 8)
    prepare(data)
    prepare(data)
    assert calls == [[16, 128]]
    prepare(data, "uniform")
    prepare(replace(data, fingerprint="other"), "uniform")
    assert len(calls) == 3
    source = store.floors_source
    assert source is not None
    assert source["data"] == "other"


def test_show_and_best_leave_out_what_has_not_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = _store(tmp_path)
    known = store.record().complete
    losses = sorted({one.objectives["reconstruction_loss"] for one in known})
    store.set_floors({}, floors(losses[2], {128: losses[0] * 1.1}))
    record = StudyStore.open(tmp_path, "scale").record()
    assert 0 < len(record.learned) < len(record.complete)
    root = ("--root", str(tmp_path))
    assert nas("study", "show", "scale", *root) == 0
    shown = capsys.readouterr().out
    assert "mean image" in shown
    assert "PCA 128" in shown
    left = len(record.complete) - len(record.learned)
    assert f"{left} of {len(record.complete)} models have" in shown
    smallest = min(record.learned, key=lambda one: one.objectives["params"])
    out = tmp_path / "best"
    assert nas("study", "best", "scale", "--by", "params", "-o", str(out), *root) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["trial"] == smallest.number
    assert result["floors"]["mean image"] == losses[2]
    assert "below the mean training image" in capsys.readouterr().out


def test_best_is_refused_where_nothing_has_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _store(tmp_path).set_floors({}, floors(1e-6))
    out = tmp_path / "best"
    assert nas("study", "best", "scale", "-o", str(out), "--root", str(tmp_path)) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") <= 2
    assert "no model of study 'scale' has learned" in error
    assert "more epochs" in error
    assert not out.exists()


def test_a_study_of_an_earlier_version_has_no_floors() -> None:
    record = StudyStore.open(RESULTS, "lowest-loss").record()
    assert record.floors is None
    assert record.front
