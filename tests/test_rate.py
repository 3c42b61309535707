"""Rate and distortion: the numbers of notes, table and figure, from records written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from studies.cli.print_study import print_study
from studies.record.rate import LossParts, active_units, kl_weight, latent_words, rate_notes
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import study_notes
from studies.report.figure_tables import hover, points_table
from studies.report.pictures import picture_rows
from studies.report.prior import prior_rows
from studies.report.rate_figure import lines_of_equal_total, rate_figure, rate_panels, rate_table
from studies.report.rate_words import latent_cells, latent_heads, rate_words
from studies.report.report import write_report
from studies.report.words import report_words
from tests.fakes.records import study, trial, with_findings
from tests.fakes.study import fake_study
from tests.helpers.page import Page

WEIGHT = 1e-3


def spent(
    number: int, loss: float, nats: float, params: float = 500, reference: str | None = None
) -> TrialRecord:
    """Return a trial of this reconstruction loss and rate."""
    metrics = {"kl": nats, "total_loss": loss + WEIGHT * nats}
    return with_findings(trial(number, loss, params, reference), metrics=metrics)


def weighed(*trials: TrialRecord) -> StudyRecord:
    config = {"training": {"kl_weight": WEIGHT}}
    return replace(study(*trials), config=config)


ORIGINAL = spent(0, 0.40, 20, 1000, "original")  # total 0.42
MODIFIED = spent(1, 0.50, 10, 800, "modified")  # total 0.51
BOUGHT = spent(2, 0.39, 52, 700)  # total 0.442: above original's, below modified's
EARNED = spent(3, 0.395, 19, 600)  # total 0.414: below both
FRUGAL = spent(4, 0.41, 5, 500)  # total 0.415: below original's at a higher reconstruction loss
POOR = spent(5, 0.60, 30, 400)  # total 0.63
OLD = trial(6, 0.38, 900)  # without metrics
STUDY = weighed(ORIGINAL, MODIFIED, BOUGHT, EARNED, FRUGAL, POOR, OLD)


def test_a_note_names_who_bought_a_lower_reconstruction_loss() -> None:
    assert rate_notes(STUDY, STUDY.front) == [
        "1 of the 2 compared architectures with a lower reconstruction loss than `original` bought "
        "it with more nats, and the total loss is not lower: #2 has 0.3900 at 52.0 nats (total "
        "0.4420); `original` has 0.4000 at 20.0 nats (total 0.4200)."
    ]
    assert study_notes(STUDY) == rate_notes(STUDY, STUDY.front)


def test_the_note_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_study(STUDY)
    printed = " ".join(capsys.readouterr().out.split())
    assert "than original bought it with more nats, and the total loss is not lower: #2" in printed
    assert "active units" not in printed
    metrics = {**BOUGHT.metrics, "active_units": 7.0}
    print_study(weighed(ORIGINAL, with_findings(BOUGHT, metrics=metrics)))
    table = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    cells = {line[0]: line[-1].strip() for line in table}
    assert cells["model"] == "(active units)"
    assert cells["original"] == "-"
    assert cells["#2*"] == f"7 of {BOUGHT.architecture.latent_size}"


def test_an_equal_total_loss_is_not_lower() -> None:
    equal = with_findings(spent(2, 0.375, 45), metrics={"kl": 45.0, "total_loss": 0.42})
    exact = with_findings(ORIGINAL, metrics={"kl": 20.0, "total_loss": 0.42})
    (note,) = rate_notes(weighed(exact, equal), [equal])
    assert note.startswith("The only compared architecture with a lower reconstruction loss than")
    assert "#2 has 0.3750 at 45.0 nats (total 0.4200)" in note
    first, second = rate_words(weighed(exact, equal), [equal])["rows"]
    assert first["against"][0]["text"] == "-"
    assert second["against"][0]["text"] == "bought with 25.0 nats: total equal"


def test_a_model_of_the_same_losses_bought_nothing() -> None:
    twin = spent(2, 0.40, 20)
    assert rate_notes(weighed(ORIGINAL, twin), [twin]) == []


@pytest.mark.parametrize("rate", [0.0, 19.9])
def test_fewer_nats_buy_nothing(rate: float) -> None:
    assert rate_notes(weighed(ORIGINAL, spent(2, 0.39, rate)), [spent(2, 0.39, rate)]) == []


def test_records_without_the_parts_of_the_loss_have_no_note() -> None:
    old = study(trial(0, 0.4, 1000, "original"), trial(2, 0.2, 500))
    assert rate_notes(old, old.front) == []
    assert rate_notes(weighed(ORIGINAL, OLD), [OLD]) == []
    assert rate_notes(weighed(trial(0, 0.4, 1000, "original"), BOUGHT), [BOUGHT]) == []


def test_the_best_of_the_headline_counts_also_off_the_front() -> None:
    assert "#2 has 0.3900" in rate_notes(weighed(ORIGINAL, BOUGHT), [])[0]


def test_a_long_list_of_names_is_cut() -> None:
    many = [spent(number, 0.39, 50, 900 - number) for number in range(2, 7)]
    (note,) = rate_notes(weighed(ORIGINAL, *many), many)
    assert note.startswith("5 of the 5 compared")
    assert "#4 has" in note
    assert "#5 has" not in note
    assert "(total 0.4400) and 2 more; `original`" in note


def test_the_rate_may_be_an_objective_instead_of_a_metric() -> None:
    values = {"reconstruction_loss": 0.4, "params": 1.0, "kl": 20.0, "total_loss": 0.42}
    objectives = with_findings(ORIGINAL, objectives=values, metrics={})
    assert LossParts.of(objectives) == LossParts(0.4, 20.0, 0.42)


def test_the_table_is_in_order_of_total_loss_and_says_what_was_bought() -> None:
    table = rate_words(STUDY, STUDY.front)
    assert table["weight"] == WEIGHT
    assert table["references"] == ["original", "modified"]
    assert not table["units"]
    rows = {row["name"]: [cell["text"] for cell in row["against"]] for row in table["rows"]}
    assert list(rows) == ["#3", "#4", "original", "#2", "modified", "#5"]
    assert rows["#2"] == [
        "bought with 32.0 nats: total 5.2 % higher",
        "both lower: total 13 % lower",
    ]
    assert rows["#3"] == ["both lower: total 1.4 % lower", "both lower: total 19 % lower"]
    assert rows["#4"] == ["only the total: 1.2 % lower", "both lower: total 19 % lower"]
    assert rows["#5"] == ["neither is lower", "neither is lower"]
    assert rows["original"] == ["-", "both lower: total 18 % lower"]
    assert [cell["text"] for cell in table["rows"][0]["cells"]] == ["0.4140", "0.3950", "19.0"]
    assert rate_words(study(OLD), [OLD])["rows"] == []


@pytest.mark.parametrize(
    ("nats", "text"),
    [
        (19.99, "both lower: total 0.24 % lower"),
        (1e6, "bought with 1e+06 nats: total 238,090 % higher"),
        (20.9999, "both lower: total < 0.01 % lower"),
    ],
)
def test_small_and_large_differences_have_fitting_digits(nats: float, text: str) -> None:
    model = spent(2, 0.399, nats)
    rows = {row["name"]: row for row in rate_words(weighed(ORIGINAL, model), [model])["rows"]}
    assert rows["#2"]["against"][0]["text"] == text


def test_active_units_are_counted_of_the_latent() -> None:
    size = ORIGINAL.architecture.latent_size
    assert active_units(ORIGINAL) == ""
    for count, text in ((7.0, "7"), (0.0, "0"), (6.0 + 2 / 3, "6.7")):
        known = with_findings(ORIGINAL, metrics={"active_units": count})
        assert active_units(known) == f"{text} of {size}"


def test_units_and_rate_are_columns_where_they_were_recorded() -> None:
    assert latent_heads(study(OLD)) == []
    assert latent_cells(study(OLD), OLD) == []
    assert [title for title, _ in latent_heads(STUDY)] == ["KL (nats)"]
    assert [cell["text"] for cell in latent_cells(STUDY, OLD)] == ["-"]
    metrics = {**BOUGHT.metrics, "active_units": 7.0}
    known = weighed(ORIGINAL, with_findings(BOUGHT, metrics=metrics))
    assert [title for title, _ in latent_heads(known)] == ["KL (nats)", "Active units"]
    size = BOUGHT.architecture.latent_size
    cells = [[cell["text"] for cell in latent_cells(known, one)] for one in known.trials]
    assert cells == [["20.0", "-"], ["52.0", f"7 of {size}"]]
    front = report_words(known)["front"]
    assert [title for title, _ in front["heads"]][-2:] == ["KL (nats)", "Active units"]
    assert rate_words(known, known.front)["units"]


def test_tooltips_and_best_tell_the_latent() -> None:
    known = with_findings(BOUGHT, metrics={**BOUGHT.metrics, "active_units": 7.0})
    size = BOUGHT.architecture.latent_size
    told = f"KL 52.0 nats, total loss 0.4420, 7 of {size} latent units active"
    assert ", ".join(latent_words(STUDY, known)) == told
    assert told in hover(STUDY, known)
    assert latent_words(STUDY, OLD) == []


@pytest.mark.parametrize(
    ("config", "weight"),
    [({}, None), ({"training": {}}, None), ({"training": {"kl_weight": 0.01}}, 0.01)],
)
def test_the_weight_is_that_of_the_study(config: dict[str, object], weight: float | None) -> None:
    assert kl_weight(replace(STUDY, config=config)) == weight


def test_the_plot_shows_every_trial_that_recorded_its_rate() -> None:
    exploded = with_findings(trial(7, 0.5, 300), metrics={"kl": 1e6, "total_loss": 1000.5})
    shown = weighed(*STUDY.trials, exploded)
    table = rate_table(shown, points_table(shown))
    assert set(table["name"]) == {"original", "modified", "#2", "#3", "#4", "#5"}
    row = table[table["name"] == "#2"]
    assert row[["reconstruction_loss", "kl"]].to_numpy().tolist() == [[0.39, 52.0]]
    (panel,) = rate_panels(shown, points_table(shown))
    assert "Diverged in training, and not drawn: #7." in panel.caption
    assert "reconstruction loss + 0.001 x KL" in panel.caption
    assert panel.figure is not None
    drawn = {name for trace in panel.figure.data for name in trace.meta or ()}
    assert drawn == set(table["name"])


def test_there_is_no_plot_of_a_single_model() -> None:
    for trials in ((), (ORIGINAL,), (OLD, trial(7, 0.3, 10))):
        record = weighed(*trials)
        assert rate_panels(record, points_table(record)) == []


def test_lines_join_equal_total_losses_inside_the_box() -> None:
    lines = lines_of_equal_total((0.3, 0.5), (10, 50), WEIGHT)
    assert list(lines) == [0.35, 0.4, 0.45, 0.5]  # of 0.31 to 0.55, where no line is left
    for total, (distortions, rates) in lines.items():
        np.testing.assert_allclose(distortions + WEIGHT * rates, total)
        assert distortions.min() >= 0.3 - 1e-12
        assert distortions.max() <= 0.5 + 1e-12
        assert (rates >= 10 - 1e-9).all()
        assert (rates <= 50 + 1e-9).all()
    distortions, rates = lines[0.35]
    np.testing.assert_allclose(distortions, [0.34, 0.3])
    np.testing.assert_allclose(rates, [10, 50])


def test_lines_on_a_logarithmic_axis_are_curves() -> None:
    lines = lines_of_equal_total((0.3, 0.5), (1, 200), WEIGHT, log=True)
    for total, (distortions, rates) in lines.items():
        assert len(rates) == 40
        np.testing.assert_allclose(distortions + WEIGHT * rates, total)


def test_without_a_weight_there_are_no_lines() -> None:
    table = rate_table(STUDY, points_table(STUDY))
    names = [trace.name for trace in rate_figure(table, 0.0).data]
    assert "equal total loss" not in names
    assert "equal total loss" in [trace.name for trace in rate_figure(table, WEIGHT).data]


def test_models_of_one_rate_and_one_loss_can_be_drawn() -> None:
    same = weighed(ORIGINAL, spent(2, 0.40, 20), spent(3, 0.40, 20))
    for trials in (same.trials, (spent(2, 0.4, 0), spent(3, 0.4, 0))):
        record = weighed(*trials)
        (panel,) = rate_panels(record, points_table(record))
        assert panel.figure is not None
        assert panel.figure.layout.xaxis.range[0] < 0.4 < panel.figure.layout.xaxis.range[1]


@pytest.mark.slow
def test_the_report_has_the_section_and_the_samples(tmp_path: Path) -> None:
    found = Page(write_report(fake_study(tmp_path, images=4)).read_text())
    assert "rate" in found.ids
    assert "plot-rate" in found.data
    assert "Samples from the prior" in found.text
    size = fake_study(tmp_path).trials[0].architecture.latent_size
    assert f"of {size} units active" in found.text


@pytest.mark.slow
def test_a_study_without_rates_and_samples_has_neither(tmp_path: Path) -> None:
    record = fake_study(tmp_path, images=4)
    bare = tuple(with_findings(one, metrics={}) for one in record.trials)
    for one in record.complete:
        record.prior_samples(one).unlink()
    found = Page(write_report(replace(record, trials=bare)).read_text())
    assert "rate" not in found.ids
    assert "Samples from the prior" not in found.text
    assert "pictures" in found.ids


def test_samples_are_shown_of_the_models_whose_reconstructions_are(tmp_path: Path) -> None:
    record = fake_study(tmp_path, images=6)
    rows = picture_rows(record)
    first = rows[1].trial
    assert first is not None
    assert [row.name for row in prior_rows(record, rows)] == [
        row.trial.name for row in rows if row.trial
    ]
    record.prior_samples(first).write_bytes(b"not an array")
    assert len(prior_rows(record, rows)) == len(rows) - 2
    assert all(row.uri.startswith("data:image/webp;base64,") for row in prior_rows(record, rows))
    assert prior_rows(record, []) == []
