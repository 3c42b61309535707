"""Samplers compared on tables: simulated time, exact regret, resumable comparisons."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from nas.objectives import nondominated
from search_spaces.errors import UserError
from studies.bench import runs
from studies.bench.contenders import CONTENDERS, RawOptuna, contenders_for
from studies.bench.curves import curves, markdown, summary
from studies.bench.figures import grouped, regret_figure
from studies.bench.nb201 import EDGES, OPERATIONS, Cell, CellSpace, load_nb201
from studies.bench.runs import PlannedSearch, run_all
from studies.bench.shipped import load_table
from studies.bench.simulation import (
    EpochEnd,
    SimulatedSearch,
    as_records,
    simulate,
    with_fitted,
)
from studies.bench.tables import METRICS, Archive, Quality, Table, TableEntry, Volume
from studies.bench.write import write_comparison
from studies.cli.main import main
from tests.helpers.made_table import made_table


@dataclass(frozen=True)
class Named:
    digest: str


@dataclass(frozen=True)
class Wanted:
    architecture: Named


class Listed:
    """Proposes what it was given and remembers what it is told."""

    def __init__(self, *digests: str) -> None:
        self.left = list(digests)
        self.told: list[tuple[str, Sequence[float] | None]] = []

    def propose(self) -> Wanted | None:
        return Wanted(Named(self.left.pop(0))) if self.left else None

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        self.told.append((digest, values))


class FirstOnly:
    """Stops everything but `favourite` after its first epoch, for good."""

    def __init__(self, favourite: str) -> None:
        self.favourite = favourite
        self.ends: dict[str, Sequence[float] | None] = {}
        self.reports: list[tuple[str, int, tuple[float, ...], tuple[float, ...]]] = []

    def report(
        self, digest: str, epoch: int, costs: Sequence[float], losses: Sequence[float]
    ) -> bool:
        self.reports.append((digest, epoch, tuple(costs), tuple(losses)))
        return digest == self.favourite or epoch > 1

    def finished(self, digest: str, values: Sequence[float] | None) -> None:
        self.ends[digest] = values

    def resumable(self) -> list[str]:
        return []


def row(digest: str, losses: Sequence[float], cost: float, epoch_s: float) -> TableEntry:
    return TableEntry(digest, {}, (cost,), tuple(losses), (epoch_s,) * len(losses))


@pytest.fixture
def table() -> Table:
    rows = [row("a", [4, 2], 1.0, 3.0), row("b", [3, 1], 4.0, 5.0), row("c", [5, 5], 16.0, 1.0)]
    return Table("made up", CellSpace(), ("loss", "cost"), {one.digest: one for one in rows})


# Time


def test_clock_of_one_worker_adds_up(table: Table) -> None:
    run = simulate(table, Listed("a", "c", "b"), trials=3)
    assert [event.time_s for event in run.events] == [0, 3, 6, 7, 8, 13, 18]
    assert [event.evaluations for event in run.events] == [0, 0, 1, 1, 2, 2, 3]


def test_a_search_ends_with_the_exact_front(table: Table) -> None:
    run = simulate(table, Listed("a", "b", "c"), trials=3)
    assert [event.time_s for event in run.events] == [0, 3, 6, 11, 16]
    assert run.events[-1].quality.regret == 0


def test_two_workers_share_the_clock(table: Table) -> None:
    asker = Listed("a", "b", "c")
    run = simulate(table, asker, trials=3, workers=2)
    # a: 3, 6; b: 5, 10; the worker that had a takes c: 7, 8.
    assert [event.time_s for event in run.events] == [0, 3, 5, 6, 7, 8, 10]
    assert asker.told == [("a", [2, 1.0]), ("c", [5, 16.0]), ("b", [1, 4.0])]


def test_budget_is_counted_in_epochs(table: Table) -> None:
    run = simulate(table, Listed("a", "b", "c"), trials=2)
    assert run.events[-1].epochs == 4
    assert (run.distinct, run.duplicates) == (2, 0)


def test_repetition_is_charged_and_finds_nothing(table: Table) -> None:
    run = simulate(table, Listed("a", "a", "b"), trials=3)
    assert (run.distinct, run.duplicates) == (2, 1)
    assert [event.time_s for event in run.events] == [0, 3, 6, 9, 12, 17, 22]
    assert run.events[4].quality == run.events[2].quality
    assert run.events[4].quality.regret > run.events[6].quality.regret


def test_stopped_candidates_leave_epochs_to_others(table: Table) -> None:
    rule = FirstOnly("b")
    asker = Listed("c", "a", "b")
    run = simulate(table, asker, trials=2, stopping=rule)
    assert [event.time_s for event in run.events] == [0, 1, 4, 9, 14]
    assert [event.evaluations for event in run.events] == [0, 1, 2, 2, 3]
    assert asker.told == [("b", [1, 4.0])]
    assert rule.reports[0] == ("c", 1, (16.0,), (5,))
    assert rule.ends == {"b": [1, 4.0]}
    assert rule.reports[-1] == ("b", 2, (4.0,), (3, 1))
    assert [event.quality.regret == 1 for event in run.events] == [True, True, True, True, False]


def test_stopped_candidate_is_taken_up_where_it_was(table: Table) -> None:
    class Resuming(FirstOnly):
        def resumable(self) -> list[str]:
            reported = [digest for digest, *_ in self.reports]
            return ["a"] if "b" in reported and reported.count("a") == 1 else []

    asker = Listed("a", "b", "c")
    rule = Resuming("")
    run = simulate(table, asker, trials=2, stopping=rule)
    # a stops at 3, b at 8; a goes on with its second epoch to 11; then c.
    assert [event.time_s for event in run.events] == [0, 3, 8, 11, 12]
    assert [event.evaluations for event in run.events] == [0, 1, 2, 2, 3]
    assert [report[:2] for report in rule.reports] == [("a", 1), ("b", 1), ("a", 2), ("c", 1)]
    assert run.distinct == 3
    assert asker.told == [("a", [2, 1.0])]


def test_asker_that_observes_hears_of_every_epoch(table: Table) -> None:
    class Watching(Listed):
        def observe(self, digest: str, epoch: int, loss: float) -> None:
            self.heard = [*getattr(self, "heard", []), (digest, epoch, loss)]

    asker = Watching("a", "b")
    simulate(table, asker, trials=2)
    assert asker.heard == [("a", 1, 4), ("a", 2, 2), ("b", 1, 3), ("b", 2, 1)]


def test_records_keep_what_changes_and_the_end() -> None:
    told = [(0, 0, 0, 1.0), (1, 1, 0, 0.5), (2, 2, 1, 0.5), (3, 3, 1, 0.2), (4, 4, 2, 0.2)]
    events = tuple(
        EpochEnd(time_s, epochs, ended, Quality(regret, regret / 2, 0.0, 0.0))
        for time_s, epochs, ended, regret in told
    )
    records = as_records(SimulatedSearch(events, 0, 2, 1.0, 0.5))
    assert records["epochs"] == [0, 1, 3, 4]
    assert records["regret"] == [1.0, 0.5, 0.2, 0.2]
    assert records["accurate"] == [0.5, 0.25, 0.1, 0.1]
    begun = as_records(SimulatedSearch(events[:1], 0, 0, 0.0, 1.0))
    assert (begun["regret"], begun["time_s"]) == ([1.0], [0])


# Regret


def test_regret_by_hand() -> None:
    # Losses 1 to 3 linear; costs 1 to 100 logarithmic: a point at (2, 10) is in the middle of both.
    volume = Volume(np.array([[1.0, 100.0], [3.0, 1.0], [2.0, 10.0]]))
    assert volume.regret(np.array([[2.0, 10.0]])) == pytest.approx(0)
    # The corners are worst on one axis each and earn nothing.
    assert volume.regret(np.array([[1.0, 100.0], [3.0, 1.0]])) == 1
    assert volume.regret(np.array([[2.5, 10.0]])) == pytest.approx(0.5)


def test_archive_agrees_with_all_points_at_once() -> None:
    points = np.random.default_rng(0).random((60, 3)) + 0.5
    volume = Volume(points)
    archive = Archive(volume)
    assert astuple(archive.quality)[:2] == (1, 1)
    for end, point in enumerate(points, start=1):
        found = archive.add(point.tolist())
        assert astuple(found) == pytest.approx(astuple(volume.quality(points[:end])), abs=1e-12)
    assert astuple(archive.quality) == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_quality_by_hand() -> None:
    # Scaled: (0, 0.5), (0.5, 0.25), (1, 0); (0.9, 1) is on no front. The median loss is 0.5.
    points = np.array([[1.0, 10.0], [2.0, 10**0.5], [3.0, 1.0], [2.8, 100.0]])
    volume = Volume(points)
    assert astuple(volume.quality(points)) == pytest.approx((0, 0, 0, 0))
    # Hypervolume: 1 x 0.5 + 0.5 x 0.25 = 0.625; its accurate half ends at 0.5: 0.5 x 0.5 = 0.25.
    best = volume.quality(points[:1])
    assert (best.regret, best.accurate, best.lowest) == pytest.approx((0.2, 0, 0))
    assert best.igd_plus == pytest.approx((0 + 0.25 + 0.5) / 3)
    middle = volume.quality(points[1:2])
    assert (middle.regret, middle.accurate) == pytest.approx((1 - 0.375 / 0.625, 1))
    assert middle.lowest == pytest.approx(1)  # a loss of 2, where 1 is the lowest
    assert middle.igd_plus == pytest.approx((0.5 + 0 + 0.25) / 3)
    nothing = volume.quality(points[:0])
    distances = np.hypot([1, 0.5, 0], [0.5, 0.75, 1])  # from the worst value on each axis
    assert astuple(nothing) == pytest.approx((1, 1, distances.mean(), 2))


def test_regret_is_zero_once_everything_is_trained(table: Table) -> None:
    run = simulate(table, Listed("c", "b", "a"), trials=3)
    regrets = [event.quality.regret for event in run.events]
    assert regrets == sorted(regrets, reverse=True)
    assert regrets[-1] == pytest.approx(0)


# NAS-Bench-201


@pytest.fixture(scope="module")
def nb201() -> Table:
    return load_nb201()


def test_nb201_has_every_cell_once(nb201: Table) -> None:
    assert len(nb201.entries) == nb201.space.size == 5**6
    assert {nb201.space.architecture(one).digest for one in nb201.space.enumerate()} == set(
        nb201.entries
    )


def test_nb201_row_is_that_of_the_source(nb201: Table) -> None:
    # Index 0 of the source: |avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|
    # skip_connect~1|skip_connect~2|
    names = (
        "avg_pool_3x3", "nor_conv_1x1", "skip_connect",
        "nor_conv_1x1", "skip_connect", "skip_connect",
    )  # fmt: skip
    found = nb201.entries[Cell(names).digest]
    assert found.values == pytest.approx([36.636002, 10.481977, 129306])


def test_nb201_cells_that_connect_nothing_earn_nothing(nb201: Table) -> None:
    nothing = nb201.entries[Cell(("none",) * 6).digest]
    assert nb201.volume.regret(np.array([nothing.values])) == 1


def test_nb201_space_answers_like_a_search_space() -> None:
    space, rng = CellSpace(), np.random.default_rng(0)
    first = space.sample(rng)
    assert space.problem(first) is None
    assert "not one of" in (space.problem({**first, EDGES[0]: "conv"}) or "")
    with pytest.raises(UserError, match="missing"):
        space.architecture({EDGES[0]: OPERATIONS[0]})
    assert space.assignment(space.architecture(first)) == first
    assert space.suggest(optuna.trial.FixedTrial(space.to_optuna(first))) == first
    assert set(space.distributions()) == set(EDGES)
    mutant = space.mutate(first, rng)
    assert sum(mutant[edge] != first[edge] for edge in EDGES) == 1


# Contenders


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * name.startswith("pareto-"))
        for name in CONTENDERS
    ],
)
def test_every_contender_searches(name: str, nb201: Table) -> None:
    chosen = CONTENDERS[name]

    def search(table: Table) -> SimulatedSearch:
        asker = chosen.asker(table, 0)
        stopping = chosen.stopping(table, asker) if chosen.stopping else None
        return simulate(table, asker, 14, workers=2, stopping=stopping)

    for table in [made_table()] if chosen.epochs_needed else [nb201, made_table()]:
        run = search(table)
        assert len(run.events) == 1 + 14 * table.epochs
        assert 0 < run.events[-1].quality.regret < 1
        assert run.distinct + run.duplicates > 14 or not chosen.epochs_needed
        if chosen.family in ("ours", "ablation"):
            assert run.duplicates == 0
        assert search(table).events == run.events


def test_contenders_for_a_table_of_one_epoch_do_not_stop_early(nb201: Table) -> None:
    names = contenders_for(nb201)
    assert "random" in names
    assert "random-stopping" not in names
    with pytest.raises(UserError, match="one epoch"):
        run_all([PlannedSearch("nb201", "random-stopping", 0, 5, 1)], Path("unused"))


def test_raw_optuna_gets_both_of_two_equal_proposals(nb201: Table) -> None:
    class Fixed(CellSpace):
        def suggest(self, trial: Any) -> dict[str, Any]:
            return {**super().suggest(trial), **dict.fromkeys(EDGES, "none")}

    asker = RawOptuna(
        Table("t", Fixed(), nb201.objectives, nb201.entries), optuna.samplers.RandomSampler(seed=0)
    )
    run = simulate(nb201, asker, 4, workers=2)
    assert (run.distinct, run.duplicates) == (1, 3)


# Noise


def test_observed_losses_differ_by_one_factor_for_each_training() -> None:
    table = load_table("vae")
    assert table.observed(0.0, 1) is table
    noisy = table.observed(0.03, 1)
    pairs = [(one, noisy.entries[digest]) for digest, one in table.entries.items()]
    factors = np.array([np.divide(there.losses, one.losses) for one, there in pairs])
    assert np.ptp(factors, axis=1).max() < 1e-9
    assert np.log(factors[:, 0]).std() == pytest.approx(0.03, rel=0.1)
    assert all(there.costs == one.costs for one, there in pairs)
    assert noisy.observed(0.03, 1).entries != table.observed(0.03, 2).entries


def test_a_front_is_chosen_by_what_was_observed_and_judged_by_what_is_true(table: Table) -> None:
    # By bad luck b looks worse than a, and by good luck c better than all.
    losses = {"a": (4.0, 2.0), "b": (3.0, 2.5), "c": (5.0, 0.5)}
    entries = {key: replace(table.entries[key], losses=losses[key]) for key in losses}
    noisy = replace(table, entries=entries)
    run = simulate(noisy, Listed("a", "b", "c"), trials=3, truth=table)
    assert run.events[-1].epochs == 6  # not over although a and b are the exact front
    points = np.array([table.entries[key].values for key in ("a", "c")])
    assert run.events[-1].quality == table.volume.quality(points)
    assert run.regret_fitted == run.events[-1].quality.regret > 0  # too few for a fit
    assert simulate(table, Listed("a", "b"), trials=3).regret_fitted == 0


def test_fitted_losses_bring_back_what_bad_luck_has_hidden() -> None:
    table = load_table("vae")
    noisy = table.observed(0.03, 0)
    observed = np.array([one.values for one in noisy.entries.values()])
    true = np.array([one.values for one in table.entries.values()])
    alone = table.volume.regret(true[nondominated(observed)])
    assert 0 < with_fitted(noisy, table, list(table.entries)).regret < alone
    assert with_fitted(noisy, table, []).regret == 1.0


@pytest.mark.slow
def test_the_command_observes_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "bench search --table vae --samplers random --seeds 1 --trials 12 --no-figures"
    main([*asked.split(), "--noise", "3"])
    assert "fitted" in capsys.readouterr().out
    (file,) = (tmp_path / "nas-bench" / "runs" / "vae-12x4-noise0.03").iterdir()
    found = json.loads(file.read_text())
    assert (found["noise"], found["sampler"]) == (0.03, "random")
    assert found["fingerprint"] == load_table("vae").fingerprint
    written = tmp_path / "nas-bench" / "vae-12x4-noise0.03-summary.md"
    assert "with the fitted front" in written.read_text()


# Comparisons


def _result(sampler: str, seed: int, evaluations: list[int], regret: list[float]) -> dict[str, Any]:
    return {
        "table": "nb201",
        "sampler": sampler,
        "seed": seed,
        "noise": 0.0,
        "evaluations": [0, *evaluations],
        "epochs": [0, *(2 * n for n in evaluations)],
        "time_s": [0, *(30.0 * n for n in evaluations)],
        **{name: [1.0, *regret] for name in METRICS},
        "duplicates": 1,
        "distinct": 3,
        "ask_ms": 2.0,
        "regret_fitted": regret[-1],
    }


@pytest.mark.parametrize("table", ["nb201", "vae"])
def test_no_two_lines_of_a_figure_look_alike(table: str) -> None:
    names = contenders_for(load_table(table))
    rows = [
        {"sampler": name, "evaluations": 1, "median": 0.1, "low": 0.1, "high": 0.1}
        for name in names
    ]
    for group in grouped(pd.DataFrame(rows)).values():
        lines = [t.line for t in regret_figure(group, "evaluations", "").data if t.line.width]
        looks = {(line.color, line.dash) for line in lines}
        assert len(looks) == len(lines) == group["sampler"].nunique()


def test_curves_are_steps_with_quartiles() -> None:
    results = [_result("random", 0, [1, 3], [0.8, 0.4]), _result("random", 1, [2, 3], [0.6, 0.2])]
    found = curves(results, "evaluations").set_index("evaluations")
    assert found["median"].to_list() == pytest.approx([1.0, 0.9, 0.7, 0.3])
    assert (found["low"].iloc[-1], found["high"].iloc[-1]) == pytest.approx((0.25, 0.35))


def test_summary_counts_seeds_that_never_got_there_as_never() -> None:
    results = [
        _result("random", seed, [1, 5], [0.5, end]) for seed, end in enumerate([0.01, 0.3, 0.001])
    ]
    results.append(_result("tpe", 0, [4], [0.5]))
    rows: list[dict[str, Any]] = summary(results).to_dict("records")  # type: ignore[assignment]
    first, second = rows
    assert (first["sampler"], first["reached"], first["seeds"]) == ("random", 2, 3)
    assert (first["to_99_evaluations"], first["to_99_epochs"], first["to_99_s"]) == (5, 10, 150)
    assert (second["sampler"], second["to_99_epochs"]) == ("tpe", np.inf)
    text = markdown(summary(results), {"tpe": "TPE"})
    regret = "0.0100 (0.0055 to 0.1550) | 0.0100 | 0.0100 | +1.00%"
    assert f"| random | 5 | 10 | 2.5 min | 2/3 | {regret} | 1.0 | 2.0 ms |" in text
    assert "| TPE | not reached | not reached | not reached | 0/1 |" in text


def test_regret_figure_has_a_band_and_a_median_for_each_sampler() -> None:
    found = curves([_result("random", 0, [1], [0.5]), _result("x", 0, [1], [0.0])], "epochs")
    figure = regret_figure(found, "epochs", "t")
    assert [trace.name for trace in figure.data if trace.mode == "lines"] == ["random", "x"]
    assert len(figure.data) == 4
    assert min(figure.data[3].y) > 0  # the axis is logarithmic


def test_ablations_are_drawn_beside_our_own_sampler_alone() -> None:
    names = ("random", "pareto", "pareto-no-costs")
    found = curves([_result(name, 0, [1], [0.5]) for name in names], "epochs")
    groups = {name: set(rows["sampler"]) for name, rows in grouped(found).items()}
    assert groups == {"": {"random", "pareto"}, "-ablation": {"pareto", "pareto-no-costs"}}
    assert set(grouped(found[found["sampler"] == "random"])) == {""}


def test_comparison_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = [PlannedSearch("nb201", "random", seed, 5, 1) for seed in range(3)]
    ran: list[int] = []
    real = runs.run_one

    def interrupted(planned: PlannedSearch, folder: Path) -> None:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(planned.seed)
        real(planned, folder)

    monkeypatch.setattr(runs, "run_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all(searches, tmp_path)
    monkeypatch.setattr(runs, "run_one", real)
    told: list[tuple[int, int]] = []
    results = run_all(searches, tmp_path, progress=lambda *at: told.append(at))
    assert ran == [0, 1]
    assert told == [(3, 3)]
    assert [result["seed"] for result in results] == [0, 1, 2]


def test_result_of_another_table_is_not_kept(tmp_path: Path) -> None:
    planned = PlannedSearch("nb201", "random", 0, 5, 1)
    (found,) = run_all([planned], tmp_path)
    file = planned.file(tmp_path)
    file.write_text(json.dumps({**found, "fingerprint": "another"}))
    assert run_all([planned], tmp_path)[0]["fingerprint"] == found["fingerprint"]


def test_unknown_names_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nsga2"):
        run_all([PlannedSearch("nb201", "nsga", 0, 5, 1)], tmp_path)
    with pytest.raises(UserError, match="nb201"):
        load_table("nb20")


def test_comparison_is_written_as_data_and_text(tmp_path: Path) -> None:
    searches = [PlannedSearch("nb201", name, 0, 5, 1) for name in ("random", "qmc")]
    written = write_comparison(run_all(searches, tmp_path), tmp_path, figures=False)
    assert [path.name for path in written.paths] == [
        "nb201-5x1-curves.csv", "nb201-5x1-summary.csv", "nb201-5x1-summary.md",
    ]  # fmt: skip
    assert all(path.stat().st_size for path in written.paths)
    assert "random" in str(written.table)
    assert "epochs" not in written.paths[2].read_text()  # an untimed table of one epoch


def test_command_tells_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = "bench search --table nb201 --samplers random,qmc --seeds 2 --trials 5 --no-figures"
    main(asked.split())
    told = capsys.readouterr().out
    assert "nas-bench/nb201-5x4-summary.md" in told
    assert len(list((tmp_path / "nas-bench" / "runs" / "nb201-5x4").iterdir())) == 4
    main(["bench", "list"])
    assert "15625 architectures, 1 epochs" in capsys.readouterr().out
