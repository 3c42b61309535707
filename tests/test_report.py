"""The report's content: complete, self-contained, safe, with missing values marked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from studies.record.comparison import ranked
from studies.record.records import StudyRecord
from studies.record.tables import study_headline
from studies.report import words as report_words
from studies.report.pictures import picture_rows
from studies.report.report import write_report, write_report_pngs
from tests.fakes.records import study as pair
from tests.fakes.records import trial, with_findings
from tests.fakes.study import fake_study
from tests.helpers.page import Page


def page(study: StudyRecord, **options: Any) -> Page:
    return Page(write_report(study, **options).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_report_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    study = fake_study(tmp_path, images=8)
    path = write_report(study)
    assert path == tmp_path / "report.html"
    assert path.stat().st_size < 8e6
    text = path.read_text(encoding="utf-8")
    assert all(link.startswith(("#", "data:")) for link in Page(text).fetched)
    assert text.count("plotly.js v") == 1
    assert "@import" not in text.split("</style>")[0]
    assert "url(" not in text.split("</style>")[0]


@pytest.mark.slow
def test_report_holds_every_section(tmp_path: Path) -> None:
    study = fake_study(tmp_path, images=4)
    found = page(study)
    assert study_headline(study).replace("`", "") in found.text.replace("\N{NO-BREAK SPACE}", " ")
    drawn = {name.removeprefix("plot-") for name in found.ids if name.startswith("plot-")}
    assert len([name for name in drawn if "-over-" in name]) == 6
    assert {"space", "parallel", "hypervolume-trials", "importance", "curves"} <= drawn
    assert "3 proposals were architectures seen before" in found.text
    assert "diverged: loss is NaN in epoch" in found.text
    assert "Example CPU 2.4 GHz, 2 threads" in found.text


def test_tooltips_exist_for_every_point(tmp_path: Path) -> None:
    data = page(fake_study(tmp_path)).data
    figures = [figure for name, figure in data.items() if name.startswith("plot-")]
    named = {
        name for figure in figures for trace in figure["data"] for name in trace.get("meta", ())
    }
    assert named
    assert named <= set(data["hovers"])


def test_figures_hold_no_nan(tmp_path: Path) -> None:
    text = write_report(fake_study(tmp_path)).read_text(encoding="utf-8")
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S):
        assert not re.search(r"\b(NaN|Infinity)\b", block)


@pytest.mark.parametrize(
    "names",
    [
        ("params", "latency_ms"),
        ("reconstruction_loss", "params", "macs"),
        ("reconstruction_loss", "params", "flops", "latency_ms", "peak_memory_bytes"),
    ],
)
@pytest.mark.slow
def test_any_number_of_objectives(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = page(fake_study(tmp_path, objectives=names))
    pairs = [name for name in found.data if "-over-" in name]
    assert len(pairs) == len(names) * (len(names) - 1) // 2
    assert ("plot-space" in found.data) == (len(names) > 2)


@pytest.mark.parametrize("found", [0, 1, 3])
@pytest.mark.parametrize("references", [{}, {"original": REFERENCES["original"]}, REFERENCES])
@pytest.mark.slow
def test_small_studies(tmp_path: Path, found: int, references: Mapping[str, Architecture]) -> None:
    shown = page(fake_study(tmp_path, found=found, references=references))
    text = shown.text
    assert "axes" not in shown.ids  # too few trials to say what matters
    assert ("trade-offs" in shown.ids) == bool(found or references)
    for name in REFERENCES:
        assert (f"Reference {name} is not part of this study" in text) == (name not in references)


def test_nothing_is_drawn_of_a_study_whose_trials_all_failed(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    failed = tuple(
        replace(t, state="failed", reason="out of memory", findings=Findings())
        for t in study.trials[:12]
    )
    found = page(replace(study, trials=failed))
    assert "All 12 architectures failed: out of memory." in found.text
    assert "three objectives" not in found.text
    sections = ("comparison", "front", "trade-offs", "space", "progress", "axes", "training")
    assert not {*sections, "pictures"} & set(found.ids)
    assert {link for link in found.fetched if link.startswith("#")} == {"#setbacks", "#setup"}


def test_a_study_without_training_and_measuring_mentions_neither(tmp_path: Path) -> None:
    study = fake_study(tmp_path, objectives=("params", "macs"), images=4)
    trials = tuple(with_findings(t, history=(), intervals={}, metrics={}) for t in study.trials)
    found = page(replace(study, trials=trials))
    assert "plot-hypervolume-trials" in found.ids
    assert not {"plot-hypervolume-time", "training", "pictures"} & set(found.ids)
    summary = found.text.split("Set-up")[0]
    assert "Images64 px" in summary.replace(" 64", "64")
    for word in ("faces, 4,000", "Budget", "Device", "Latenc", "95 %", "Reconstructions"):
        assert word not in summary


def test_counts_have_fitting_nouns(tmp_path: Path) -> None:
    study = fake_study(tmp_path, found=3)
    config = {**study.config, "training": {"epochs": 1}}
    text = page(replace(study, config=config, space_size=90)).text
    assert "at most 1 epoch" in text
    assert "(90 assignments)" in text


@pytest.mark.slow
def test_a_disturbed_latency_is_marked(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    calm = tuple(with_findings(t, contended=False) for t in study.trials)
    busy = tuple(with_findings(t, contended=True) for t in study.trials)
    assert "busy machine" not in page(replace(study, trials=calm)).text
    text = page(replace(study, trials=busy)).text
    tiles = text.split("Evaluated")[0]
    assert re.search(r"about \S+x? ?%? (lower|higher) latency", tiles)
    assert "busy machine" in tiles


def test_a_failed_reference_is_reported(tmp_path: Path) -> None:
    study = fake_study(tmp_path)
    failed = replace(study.trials[1], state="failed", reason="out of memory", findings=Findings())
    text = page(replace(study, trials=(study.trials[0], failed, *study.trials[2:]))).text
    assert "Reference modified failed: out of memory." in text
    assert "against modified" not in text


@pytest.mark.slow
def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    study = fake_study(tmp_path, references={evil: REFERENCES["original"]})
    config = {**study.config, "description": evil, "data": {"kind": evil}}
    trials = tuple(replace(t, reason=evil) if t.state == "failed" else t for t in study.trials)
    text = write_report(replace(study, name=evil, config=config, trials=trials)).read_text()
    calm = write_report(fake_study(tmp_path / "calm", references={})).read_text()
    assert "<script>alert" not in text
    assert text.count("</script>") == calm.count("</script>")
    assert evil in Page(text).text  # shown as it was written


def test_without_plots_the_texts_stay(tmp_path: Path) -> None:
    path = write_report(fake_study(tmp_path), plots=False)
    assert path.stat().st_size < 300_000
    assert study_headline(fake_study(tmp_path)).split("`")[0] in path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_large_studies_stay_small(tmp_path: Path) -> None:
    study = fake_study(tmp_path, found=4000, objectives=("reconstruction_loss", "params"))
    path = write_report(study)
    pair = Page(path.read_text(encoding="utf-8")).data["plot-reconstruction_loss-over-params"]
    names = {name for trace in pair["data"] for name in trace.get("meta", ())}
    assert len(names) <= 3000
    assert {member.name for member in study.front} <= names
    assert path.stat().st_size < 8e6


def test_picture_rows_show_originals_references_then_front(tmp_path: Path) -> None:
    study = fake_study(tmp_path, images=6)
    rows = picture_rows(study)
    assert [row.trial.name if row.trial else None for row in rows[:3]] == [
        None,
        "original",
        "modified",
    ]
    assert len(rows) == 1 + 2 + 8
    assert all(row.uri.startswith("data:image/png;base64,") for row in rows)


@pytest.mark.slow
def test_missing_and_damaged_pictures_are_left_out(tmp_path: Path) -> None:
    study = fake_study(tmp_path, images=4)
    first, second = study.references.values()
    study.reconstructions(first).unlink()
    study.reconstructions(second).write_bytes(b"not an array")
    assert not any(row.trial.reference for row in picture_rows(study) if row.trial)
    np.save(study.samples, np.zeros((2, 2)))
    assert picture_rows(study) == []
    assert "No reconstructions were stored." in page(study).text


def test_an_unwritable_place_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="report cannot be written"):
        write_report(fake_study(tmp_path), tmp_path / "file" / "report.html", plots=False)


def test_pngs_are_one_per_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import json, pathlib, sys\n"
        "for job in json.loads(pathlib.Path(sys.argv[1], 'figures.json').read_text()):\n"
        "    pathlib.Path(job['path']).write_bytes(b'png')\n"
    )
    monkeypatch.setattr("studies.pages.pngs._PROGRAM", program)
    paths = write_report_pngs(fake_study(tmp_path), tmp_path / "figures")
    assert len(paths) == len(set(paths)) == 15
    assert all(path.read_bytes() == b"png" for path in paths)


def test_a_large_front_is_listed_in_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = fake_study(tmp_path, found=200)
    monkeypatch.setattr(report_words, "_FRONT_ROWS", 5)
    words = report_words.report_words(study)
    members = [trial for trial in study.front if trial.reference is None]
    best = [row["name"] for row in words["comparison"]]
    assert (
        best == [trial.name for trial in ranked(study, members, study.references["original"])][:5]
    )
    listed = [row["trial"] for row in words["front"]["rows"]]
    assert {trial.name for trial in listed if not trial.reference} == set(best)
    text = Page(write_report(study, plots=False).read_text()).text
    assert f"The table lists the 5 that improve most on original, of {len(members)} found" in text
    assert "nas study export faces-64" in text


@pytest.mark.slow
def test_a_large_study_says_how_many_points_are_drawn(tmp_path: Path) -> None:
    study = fake_study(tmp_path, found=2500)
    page = Page(write_report(study).read_text())
    assert f"2,000 of {len(study.complete):,} evaluated architectures are drawn" in page.text
    assert len(page.data["hovers"]) == 2000
    assert {trial.name for trial in study.front} <= set(page.data["hovers"])


def pinned_study() -> StudyRecord:
    """Two references and two candidates on the front, one of them with all that is shown of it."""
    shown = with_findings(
        trial(2, 0.2, 500),
        intervals={"params": (490, 510)},
        metrics={"psnr_db": 21.987, "ssim": 0.81237, "kl": 3.0},
    )
    return pair(trial(0, 0.4, 1000, "original"), trial(1, 0.5, 800, "modified"), shown, SMALLER)


SMALLER = trial(3, 0.8, 100)


def test_the_batch_of_the_latency_is_a_fact(tmp_path: Path) -> None:
    facts = dict(report_words.report_words(fake_study(tmp_path))["facts"])
    assert facts["Latency"] == "batch 1, 1 thread"


def test_the_front_shows_intervals_and_metrics_with_their_digits() -> None:
    front = report_words.report_words(pinned_study())["front"]
    titles = [title for title, _ in front["heads"]]
    assert titles == ["Reconstruction loss", "Parameters", "PSNR (dB)", "SSIM"]
    first, second = front["rows"]
    assert [cell["text"] for cell in first["cells"]] == ["0.2000", "500", "21.99", "0.8124"]
    assert [cell["interval"] for cell in first["cells"]] == ["", "490 to 510", "", ""]
    assert [cell["text"] for cell in second["cells"]] == ["0.8000", "100", "-", "-"]


def test_factors_are_coloured_by_their_direction_and_size() -> None:
    words = report_words.report_words(pinned_study())

    def tints(place: int, reference: int) -> list[str]:
        return [cell["tint"] for cell in words["comparison"][place]["groups"][reference]["cells"]]

    assert [row["name"] for row in words["comparison"]] == ["#2", "#3"]
    assert tints(0, 0) == ["better2", "better2"]  # 2x and 2x against original
    assert tints(0, 1) == ["better2", "better2"]  # 2.5x and 1.6x against modified
    assert tints(1, 0) == ["worse2", "better3"]  # 0.5x and 10x
    assert [entry["tint"] for entry in words["tiles"]["entries"]] == ["better2", "better2"]


@pytest.mark.parametrize(
    ("params", "tint"), [(1100, "better1"), (1000, "better2"), (401, "better2"), (400, "better3")]
)
def test_tints_change_at_factors_of_1_2_and_3(params: float, tint: str) -> None:
    study = pair(trial(0, 0.4, 1200, "original"), trial(2, 0.4, params))
    (row,) = report_words.report_words(study)["comparison"]
    assert [cell["tint"] for cell in row["groups"][0]["cells"]] == ["even", tint]
