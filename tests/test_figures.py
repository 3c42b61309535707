"""Tables and figures of a study, compared with numbers derived by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas.objectives import OBJECTIVES, hypervolume
from studies.pages.style import log_ticks, marks_in, reference_marks
from studies.record.comparison import champion
from studies.record.formats import (
    counted,
    describe_change,
    format_bytes,
    format_count,
    format_duration,
    format_factor,
    format_gain,
    format_metric,
    format_ms,
    format_rate,
    format_shape,
    format_value,
    listed,
    reason_kind,
)
from studies.record.records import TrialRecord
from studies.record.tables import (
    dominance_table,
    setback_table,
    spread,
    study_headline,
    study_notes,
)
from studies.report.figure_tables import (
    curve_table,
    drawn_share,
    hover,
    hovers,
    hypervolume_steps,
    hypervolume_table,
    plotted,
    points_table,
    reference_hypervolume,
    staircase,
)
from studies.report.figures import curve_figure, hypervolume_figure, pair_figure
from studies.report.labels import label_places
from studies.report.overviews import cube_figure, parallel_figure
from tests.fakes.records import study, trial, with_findings
from tests.fakes.study import fake_study

SMALL = study(
    trial(0, 0.4, 1000, "original"),
    trial(1, 0.5, 800, "modified"),
    trial(2, 0.2, 500),  # dominates both references
    trial(3, 0.8, 100),  # better in parameters only
    trial(4, 0.4, 900),  # dominates original (equal loss), beaten by 2
    trial(5, None, 9000, state="rejected"),
)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("params", 9_352_195, "9.35 M"),
        ("macs", 664_879_104, "664.9 M"),
        ("macs", 1_101_969_536, "1.10 G"),
        ("params", 999_999, "1.00 M"),
        ("params", 512, "512"),
        ("latency_ms", 12.34, "12.3 ms"),
        ("latency_ms", 0.7874, "0.787 ms"),
        ("latency_ms", 1234.5, "1,234 ms"),
        ("peak_memory_bytes", 12_345_678, "12.35 MB"),
        ("peak_memory_bytes", 12, "12 B"),
        ("reconstruction_loss", 0.25341, "0.2534"),
        ("reconstruction_loss", math.nan, "-"),
    ],
)
def test_values_are_written_for_people(name: str, value: float, text: str) -> None:
    assert format_value(OBJECTIVES[name], value) == text


def test_parts_and_things_are_written_as_in_a_sentence() -> None:
    assert [listed(list(parts)) for parts in ("", "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert listed(["a", "b", "c"], "or") == "a, b or c"
    assert [counted(n, "layer") for n in (0, 1, 2, 1200)] == [
        "0 layers",
        "1 layer",
        "2 layers",
        "1,200 layers",
    ]


def test_measured_amounts_have_three_digits_and_their_unit() -> None:
    assert [format_ms(t) for t in (0.01234, 12.34, 1234.0)] == ["0.0123 ms", "12.3 ms", "1,234 ms"]
    assert [format_bytes(n) for n in (12, 1.5e9)] == ["12 B", "1.50 GB"]
    assert [format_count(n) for n in (12, 9.35e6)] == ["12", "9.35 M"]
    assert [f(math.nan) for f in (format_ms, format_bytes, format_count)] == ["-", "-", "-"]
    assert [format_rate(r) for r in (123.4, 12.34, 0.1234)] == ["123", "12.3", "0.12"]
    assert format_shape((8, 64, 36, 36)) == "64 x 36 x 36"


def test_factors_durations_and_reasons_are_written_for_people() -> None:
    assert [format_factor(f) for f in (12.34, 9.96, 0.418, None)] == [
        "12.3x",
        "10.0x",
        "0.42x",
        "-",
    ]
    durations = [format_duration(s) for s in (3.21, 38, 200, 7500, 4 * 3600 + 3 * 86400)]
    assert durations == ["3.21 s", "38 s", "3 min 20 s", "2 h 05 min", "3 d 4 h"]
    gains = [format_gain(f) for f in (12.34, 1.0, 1.003, 0.998, 1 + 1e-6)]
    assert gains == ["12.3x", "1.00x", "0.3 % lower", "0.2 % higher", "<0.001 % lower"]
    assert reason_kind("params 1.2 M > 1 M") == reason_kind("params 30 M > 1 M")
    assert reason_kind("params 1 > 1") != reason_kind("macs 1 > 1")


@pytest.mark.parametrize(
    ("name", "value", "reference", "text"),
    [
        ("params", 100, 1230, "12.3x fewer parameters"),
        ("macs", 200, 100, "2.0x more MACs"),
        ("latency_ms", 3.0, 4.0, "25 % lower latency"),
        ("reconstruction_loss", 0.404, 0.4, "1 % higher reconstruction loss"),
        ("reconstruction_loss", 0.4004, 0.4, "0.1 % higher reconstruction loss"),
        ("reconstruction_loss", 0.4, 0.4, "the same reconstruction loss"),
        ("params", 1000, 1000, "as many parameters"),
    ],
)
def test_changes_are_reported_as_factors_or_shares(
    name: str, value: float, reference: float, text: str
) -> None:
    assert describe_change(OBJECTIVES[name], value, reference) == text


def test_metrics_have_two_digits_in_db_and_else_four() -> None:
    assert format_metric("psnr_db", 21.987) == "21.99"
    assert format_metric("ms_ssim", 0.81237) == "0.8124"
    assert format_metric("ssim", None) == "-"


def test_headline_tells_who_dominates_and_by_how_much() -> None:
    assert study_headline(SMALL) == (
        "2 of 3 architectures found dominate `original` in both objectives (1 dominates "
        "`modified`), by losses of one training each, not confirmed; the best, #2, has 2.0x fewer "
        "parameters at 2.0x lower reconstruction loss."
    )


def test_headline_names_the_closest_where_none_dominates() -> None:
    lone = study(trial(0, 0.4, 1000, "original"), trial(1, 0.8, 100))
    assert study_headline(lone) == (
        "None of 1 architecture found dominates `original` in both objectives, by losses of one "
        "training each, not confirmed; the closest, #1, has 10.0x fewer parameters at 2.0x higher "
        "reconstruction loss."
    )


def test_headline_without_references_or_without_anything() -> None:
    assert study_headline(study()) == "No architecture has been evaluated yet."
    failed = [
        replace(trial(i, None, 9, state="failed"), reason=f"NaN in epoch {i}") for i in (1, 2)
    ]
    lost = replace(trial(3, None, 9, state="failed"), reason="out of memory")
    assert study_headline(study(*failed, lost)) == (
        "All 3 architectures failed, most often (2) for this reason: NaN in epoch 1."
    )
    assert study_headline(study(trial(0, 0.4, 1000, "original"), lost)) == (
        "1 candidate failed: out of memory."
    )
    assert "no architecture was found" in study_headline(study(trial(0, 0.4, 1000, "original")))
    assert study_headline(study(trial(2, 0.2, 500), trial(3, 0.9, 900))).startswith("1 of 2")


def test_dominance_counts_every_found_architecture() -> None:
    table = dominance_table(SMALL)
    assert table.loc["original"].to_dict() == {
        "dominate": 2,
        "better_in_2": 1,
        "better_in_1": 2,
        "better_in_0": 0,
    }


def test_champion_dominates_before_all_else() -> None:
    tiny = trial(6, 0.41, 1)  # far smaller, but a little worse in loss
    crowd = study(*SMALL.trials, tiny)
    best = champion(crowd, crowd.references["original"])
    assert best is not None
    assert best.number == 2


def test_costs_that_are_no_objective_are_shown_where_all_have_them() -> None:
    members = [with_findings(t, objectives={**t.objectives, "macs": 2e6}) for t in SMALL.trials]
    told = study(*members)
    assert [objective.name for objective in told.recorded] == ["macs"]
    assert "MACs: 2.00 M" in hover(told, members[2])
    assert SMALL.recorded == study(SMALL.trials[0], *members[1:]).recorded == ()


def test_missing_and_failed_references_are_said() -> None:
    failed = replace(trial(1, None, 800, "modified", "failed"), reason="out of memory")
    assert study_notes(study(failed)) == [
        "Reference `original` is not part of this study. Comparisons with it are left out.",
        "Reference `modified` failed: out of memory. Comparisons with it are left out.",
    ]
    assert study_notes(SMALL) == []


def test_a_space_that_is_used_up_is_said() -> None:
    members = [replace(one, assignment={"latent_size": 8}) for one in SMALL.trials]
    count = len({one.digest for one in members})
    whole = replace(SMALL, trials=tuple(members), space_distinct=count)
    assert study_notes(whole)[0].startswith(f"All {count} distinct architectures of space")
    assert study_notes(replace(whole, space_distinct=count + 1)) == []


def test_setbacks_are_counted_by_cause(tmp_path: Path) -> None:
    table = setback_table(fake_study(tmp_path))
    assert list(table["count"]) == [3, 2]
    assert list(table["state"]) == ["rejected", "failed"]


def test_points_keep_front_and_references_when_spread(tmp_path: Path) -> None:
    record = fake_study(tmp_path, found=60)
    full, few = points_table(record), points_table(record, limit=len(record.front) + 5)
    assert len(full) == len(record.complete)
    assert len(few) == len(record.front) + 5
    assert set(few.loc[few["front"], "name"]) == {member.name for member in record.front}
    assert {"original", "modified"} <= set(few["kind"])


def test_thinned_points_keep_the_worst_of_each_objective_and_say_how_many(tmp_path: Path) -> None:
    record = fake_study(tmp_path, found=300)
    limit = len(record.front) + 20
    few = plotted(record, limit)
    assert len(few) == len({trial.number for trial in few}) == limit
    for name in record.objective_names:
        largest = max(trial.objectives[name] for trial in record.complete)
        assert max(trial.objectives[name] for trial in few) == largest
    assert f"{limit} of {len(record.complete)} evaluated" in drawn_share(record, limit)
    assert set(hovers(record, limit)) == {trial.name for trial in few}


def test_nothing_is_said_where_everything_is_drawn(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    assert len(plotted(record)) == len(record.complete)
    assert drawn_share(record) == ""


def test_a_front_larger_than_the_limit_is_drawn_whole(tmp_path: Path) -> None:
    record = fake_study(tmp_path, found=100)
    names = {trial.name for trial in plotted(record, 3)}
    assert {trial.name for trial in record.front} <= names
    assert {"original", "modified"} <= names


def test_steps_are_the_trials_that_change_the_hypervolume() -> None:
    table = pd.DataFrame(
        {
            "trial": range(1, 7),
            "hypervolume": [0.0, 0.2, 0.2, 0.5, 0.5, 0.5],
            "name": list("abcdef"),
        }
    )
    assert list(hypervolume_steps(table)["name"]) == ["a", "b", "d", "f"]
    assert hypervolume_steps(table[:0]).empty


def test_dominated_trials_leave_the_hypervolume_as_it_is(tmp_path: Path) -> None:
    record = fake_study(tmp_path, found=60)
    table, ended = hypervolume_table(record), []
    for volume, one in zip(table["hypervolume"], record.trials, strict=True):
        ended += [one] if one.state == "complete" else []
        assert volume == pytest.approx(hypervolume(record.points(ended), record.nadir))


def test_thinning_keeps_both_ends() -> None:
    assert spread(range(10), 3) == [0, 4, 9]
    assert spread([1, 2], 5) == [1, 2]
    assert spread(range(10), 0) == []


def test_staircase_is_the_front_of_two_columns() -> None:
    stairs = staircase(points_table(SMALL), "params", "reconstruction_loss")
    assert stairs.to_numpy().tolist() == [[100, 0.8], [500, 0.2]]


def test_hypervolume_grows_to_that_of_the_front(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    table = hypervolume_table(record)
    assert len(table) == len(record.trials)
    assert table["hypervolume"].is_monotonic_increasing
    expected = hypervolume(record.points(record.front), record.nadir)
    assert table["hypervolume"].iloc[-1] == pytest.approx(expected)


def test_hypervolume_by_hand() -> None:
    record = study(
        trial(0, 0.5, 1000, "original", duration_s=10),
        trial(1, None, 5000, state="failed", duration_s=5),
        trial(2, 0.25, 500, duration_s=20),
    )
    table = hypervolume_table(record)
    # The box reaches to 0.55 and 1100: the reference leaves 1/11 of each side, #2 leaves 6/11.
    assert list(table["hypervolume"]) == pytest.approx([1 / 121, 1 / 121, 36 / 121])
    assert list(table["training_s"]) == [10, 15, 35]
    assert reference_hypervolume(record) == pytest.approx(1 / 121)


def test_curves_hold_references_and_front(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    table = curve_table(record)
    assert set(table["name"]) == {m.name for m in record.front} | {"original", "modified"}
    assert (table.groupby("name")["epoch"].count() == 6).all()


def test_a_single_epoch_is_drawn_as_points_at_a_whole_number(tmp_path: Path) -> None:
    record = fake_study(tmp_path, found=3)
    once = tuple(with_findings(t, history=t.history[:1]) for t in record.trials)
    figure = curve_figure(curve_table(replace(record, trials=once)))
    assert {trace.mode for trace in figure.data} == {"lines+markers"}
    assert list(figure.layout.xaxis.tickvals) == [1]
    table = curve_table(record)
    many = curve_figure(table.assign(epoch=10 * table["epoch"]))
    assert {trace.mode for trace in many.data} == {"lines"}


def test_ticks_are_round_and_cover_the_data() -> None:
    assert log_ticks(1, 20) == [1, 2, 5, 10, 20]
    assert log_ticks(900, 2.1e6) == [1e3, 1e4, 1e5, 1e6]
    assert log_ticks(150, 4e4) == [100, 300, 1e3, 3e3, 1e4, 3e4]


def test_a_pair_draws_costs_on_logarithmic_axes_with_intervals(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    points = points_table(record)
    figure = pair_figure(points, OBJECTIVES["latency_ms"], OBJECTIVES["reconstruction_loss"])
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.yaxis.type == "linear"
    traces = {trace.name: trace for trace in figure.data}
    latency = points.set_index("name")["latency_ms"]
    assert traces["front"].error_x.array[0] == pytest.approx(
        0.05 * latency[traces["front"].meta[0]]
    )
    assert {"original", "modified", "front", "front, busy machine"} <= set(traces)
    assert [trace.name for trace in figure.data][-2:] == ["original", "modified"]


@pytest.mark.parametrize(("found", "named"), [(8, True), (100, False)])
def test_points_of_a_small_front_have_their_names_beside_them(
    tmp_path: Path, found: int, named: bool
) -> None:
    points = points_table(fake_study(tmp_path, found=found))
    assert (sum(points["kind"] == "front") <= 8) is named
    x, y = OBJECTIVES["latency_ms"], OBJECTIVES["reconstruction_loss"]
    for trace in pair_figure(points, x, y).data:
        if trace.name in ("original", "modified"):
            assert trace.text == (f"<b>{trace.name}</b>",)
        elif trace.name and trace.name.startswith("front"):
            assert (trace.text == trace.meta) is named
            assert ("text" in trace.mode) is named


def test_names_keep_off_the_bars_of_their_points() -> None:
    x, y = OBJECTIVES["params"], OBJECTIVES["reconstruction_loss"]
    corners = (trial(1, 0.0, 1000), trial(2, 1.0, 10))

    def place(**intervals: tuple[float, float]) -> str:
        reference = with_findings(trial(0, 0.5, 100, "original"), intervals=intervals)
        (trace,) = (
            trace
            for trace in pair_figure(points_table(study(reference, *corners)), x, y).data
            if trace.name == "original"
        )
        return str(trace.textposition[0])

    assert place() == "top center"
    assert place(reconstruction_loss=(0.2, 0.8)) == "middle right"
    assert place(params=(50, 200)) == "top center"


def test_references_look_the_same_in_every_figure(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    points = points_table(record)
    marks = marks_in(points)
    figures = [pair_figure(points, x, y) for x, y in combinations(record.objectives, 2)]
    figures += [cube_figure(points, record.objectives), parallel_figure(points, record.objectives)]
    for figure in figures:
        for trace in figure.data:
            if trace.name in marks:
                colour = trace.line.color if trace.mode == "lines+markers" else trace.marker.color
                assert (colour, trace.marker.symbol) == (
                    marks[trace.name].colour,
                    marks[trace.name].symbol,
                )
    assert len(set(reference_marks(["original", "modified", "third", "fourth"]).values())) == 4


def test_space_view_carries_all_objectives(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    figure = cube_figure(points_table(record), record.objectives)
    assert all(len(row) == 4 for trace in figure.data for row in trace.customdata)
    assert figure.layout.meta["shown"] == [0, 1, 2, 3]


def test_parallel_lines_have_gaps_between_architectures(tmp_path: Path) -> None:
    record = fake_study(tmp_path)
    figure = parallel_figure(points_table(record), record.objectives)
    lines = next(trace for trace in figure.data if trace.name == "front")
    width = len(figure.layout.xaxis.ticktext) + 1
    assert len(lines.x) == len(lines.y) == len(lines.meta)
    assert all(value is None for value in lines.y[width - 1 :: width])
    assert all(0 <= value <= 1 for value in lines.y if value is not None)


def test_training_time_is_shown_in_a_fitting_unit() -> None:
    table = pd.DataFrame(
        {"trial": [1, 2], "name": ["a", "b"], "training_s": [0.0, 7200.0], "hypervolume": [0, 0.5]}
    )
    figure = hypervolume_figure(table, "training_s", 0.1)
    assert figure.layout.xaxis.title.text == "Training time (h)"
    assert list(figure.data[0].x) == [0, 2]


def test_labels_avoid_points_edges_and_each_other() -> None:
    anchor = np.array([[0.5, 0.5]])
    above = np.array([[0.5, 0.58], [0.52, 0.58]])
    assert label_places(np.vstack([anchor, above]), anchor, [8]) == ["bottom center"]
    corner = np.array([[1.0, 1.0]])
    assert label_places(corner, corner, [8])[0] in ("middle left", "bottom left")
    twins = np.array([[0.5, 0.5], [0.5, 0.62]])
    first, second = label_places(twins, twins, [8, 8])
    assert first != second


def test_a_training_whose_kl_ran_away_is_reported() -> None:
    def trained(number: int, total: float, reference: str | None = None) -> TrialRecord:
        found = trial(number, 0.5, 1000.0 - number, reference=reference)
        return with_findings(found, metrics={"total_loss": total})

    told = study_notes(
        study(trained(0, 24.0, "original"), trained(1, 0.52, "modified"), trained(2, 0.6))
    )
    assert [note for note in told if "diverged" in note] == [
        "The training of `original` diverged: its total loss is 24, of which reconstruction is "
        "0.5. A lower learning rate may do better; until then, do not compare its loss with others."
    ]
