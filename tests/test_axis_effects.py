"""Importance and effects of axes, compared with numbers derived by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas.objectives import select_objectives
from studies.record.axis_effects import effect_table, format_effect, importance_table
from studies.record.formats import format_change
from studies.report.figures import effect_figure
from tests.fakes.records import NAMES, study, trial
from tests.helpers.command import nas


def test_importance_finds_the_axis_that_decides() -> None:
    rng = np.random.default_rng(0)
    trials = [
        trial(i, 0.5, 10.0 ** (i % 2), assignment={"kind": "ab"[i % 2], "noise": int(noise)})
        for i, noise in enumerate(rng.integers(0, 3, 40))
    ]
    table = importance_table(study(*trials))
    assert table.index[0] == "kind"
    assert table.loc["kind", "params"] == pytest.approx(1.0)
    assert table.loc["kind", "reconstruction_loss"] == 0.0  # a constant has nothing to explain


def test_importance_by_hand() -> None:
    # Logarithms 0, 2 | 4, 6 (times ln 10), each three times: between 48, within 12, total 60; the
    # mean square within is 12 / (12 - 2) = 1.2, so epsilon squared is (48 - 1.2) / 60.
    values = [0, 2, 4, 6] * 3
    trials = [
        trial(i, 0.5, 10.0**v, assignment={"axis": "low" if v < 3 else "high"})
        for i, v in enumerate(values)
    ]
    assert importance_table(study(*trials)).loc["axis", "params"] == pytest.approx(46.8 / 60)


def test_importance_credits_a_conditional_axis_within_its_own_trials() -> None:
    plain = [trial(i, 0.5, 1.0, assignment={"block": "plain"}) for i in range(10)]
    dense = [
        trial(i, 0.5, 100.0, assignment={"block": "dense", "growth": 8 * (i % 2)})
        for i in range(10, 20)
    ]
    table = importance_table(study(*plain, *dense))
    assert list(table.index) == ["block"]


def test_importance_needs_ten_trials() -> None:
    trials = [trial(i, 0.5, 10.0 ** (i % 2), assignment={"kind": i % 2}) for i in range(9)]
    assert importance_table(study(*trials)).empty


def test_effects_are_factors_over_the_average_choice() -> None:
    # Geometric means 10 and 1000: the average choice is 100.
    values = {"small": [5.0, 20.0] * 3, "large": [500.0, 2000.0] * 3}
    trials = [
        trial(number, 0.5, value, assignment={"size": size})
        for size, found in values.items()
        for number, value in enumerate(found)
    ]
    table = effect_table(study(*trials)).set_index("choice")
    assert table.loc["small", "params"] == pytest.approx(0.1)
    assert table.loc["large", "params"] == pytest.approx(10)
    assert table.loc["small", "trials"] == 6
    # Half the difference of two means, each of 6, with the variance within of 10 degrees.
    expected = 10 * np.exp(2.2281 * np.sqrt(12 * np.log(2) ** 2 / 10 / 12))
    assert table.loc["large", "params_high"] == pytest.approx(expected, rel=1e-4)
    assert table.loc["large", "params_low"] == pytest.approx(100 / expected, rel=1e-4)


@pytest.mark.slow
def test_intervals_of_effects_cover_what_is_true() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(200):
        sizes, truth = (4, 9, 15), np.array([0.0, 0.5, 1.0])
        trials = [
            trial(
                0, 0.5, float(np.exp(truth[kind] + rng.normal())), assignment={"kind": "abc"[kind]}
            )
            for kind, size in enumerate(sizes)
            for _ in range(size)
        ]
        table = effect_table(study(*trials)).set_index("choice")
        if "a" in table.index:
            covered += table.loc["a", "params_low"] <= np.exp(-0.5) <= table.loc["a", "params_high"]
        else:
            covered += 1  # nothing was found: left out, like an axis that does not matter
    assert 0.9 <= covered / 200 <= 0.99


def test_many_numbers_become_quartiles_and_choices_are_in_order() -> None:
    numbers = [trial(i, 0.5, float(i + 1), assignment={"width": i + 1}) for i in range(16)]
    table = effect_table(study(*numbers))
    assert table["choice"].tolist() == ["1 to 4", "5 to 8", "9 to 12", "13 to 16"]
    kinds = [
        trial(i, 0.5, 10.0 ** (i % 3), assignment={"stem": (16, None, 8)[i % 3]}) for i in range(12)
    ]
    assert effect_table(study(*kinds))["choice"].tolist() == ["none", "8", "16"]


def test_a_choice_without_a_known_value_has_no_effect() -> None:
    trials = [
        trial(10 * i + j, loss, 10.0**i, assignment={"k": "abc"[i]})
        for i, loss in enumerate((0.5, 1.5, None))
        for j in range(10)
    ]
    table = effect_table(study(*trials)).set_index("choice")
    assert table.loc[["c"], "reconstruction_loss"].isna().all()
    assert table.loc["a", "reconstruction_loss"] == pytest.approx((0.5 / 1.5) ** 0.5)
    assert table.loc["c", "params"] == pytest.approx(10)


def test_too_few_trials_have_no_effects() -> None:
    trials = [trial(i, 0.5, 10.0 ** (i % 2), assignment={"kind": i % 2}) for i in range(9)]
    assert effect_table(study(*trials)).empty


@pytest.mark.parametrize(
    ("factor", "text"),
    [(1.123, "+12 %"), (0.9751, "-2.5 %"), (1.0, "0 %"), (2.345, "2.35x"), (0.4, "0.40x"),
     (float("nan"), "-"), (1.0001, "0 %")],
)  # fmt: skip
def test_changes_are_short(factor: float, text: str) -> None:
    assert format_change(factor) == text


def test_effects_that_may_be_chance_are_in_brackets() -> None:
    row = {"params": 1.2, "params_low": 0.9, "params_high": 1.6}
    assert format_effect(row, "params") == "(+20 %)"
    assert format_effect({**row, "params_low": 1.1}, "params") == "+20 %"
    unknown = dict.fromkeys(row, float("nan"))
    assert format_effect(unknown, "params") == "-"


def test_references_do_not_count() -> None:
    found = [trial(i, 0.5, 10.0 ** (i % 2), assignment={"kind": "ab"[i % 2]}) for i in range(20)]
    reference = trial(20, 0.5, 1e9, reference="original", assignment={"kind": "c"})
    assert effect_table(study(*found, reference)).equals(effect_table(study(*found)))


def test_the_figure_shows_less_in_blue_and_more_in_orange() -> None:
    table = pd.DataFrame(
        {"axis": ["block"] * 2, "choice": ["plain", "dense"], "trials": [5, 5],
         "params": [0.5, 2.0], "params_low": [0.4, 1.8], "params_high": [0.6, 2.2]}
    )  # fmt: skip
    (heat,) = effect_figure(table, select_objectives(NAMES)).data
    assert list(heat.y) == ["block: dense", "block: plain"]
    params = list(heat.x).index("Parameters")
    assert np.array(heat.z)[:, params] == pytest.approx([np.log(2), -np.log(2)])
    assert heat.zmin == -heat.zmax
    assert [row[params] for row in heat.text] == ["2.00x", "0.50x"]


@pytest.mark.slow
def test_the_command_prints_effects_and_writes_all_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["study", "run", "quickstart", "--space", "tiny", "--trials", "12", "--name", "s"]
    command += ["--objectives", "params,macs", "--sampler", "random", "--workers", "1"]
    command += ["--root", str(tmp_path)]
    assert nas(*command) == 0
    capsys.readouterr()
    out = tmp_path / "effects.csv"
    assert nas("study", "effects", "s", "--out", str(out), "--root", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    table = pd.read_csv(out)
    assert {"axis", "choice", "trials", "params", "params_low", "params_high"} <= set(table)
    assert str(table["axis"][0]) in printed


@pytest.mark.slow
def test_too_few_trials_print_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["study", "run", "quickstart", "--space", "tiny", "--trials", "3", "--name", "few"]
    command += ["--workers", "1"]
    assert nas(*command, "--objectives", "params,macs", "--root", str(tmp_path)) == 0
    capsys.readouterr()
    assert nas("study", "effects", "few", "--root", str(tmp_path)) == 2
    assert "too few trials" in capsys.readouterr().err
