"""Objectives that are maximised, may be zero or have no factor, from the sampler to the report."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from nas.evaluate import STATIC_COSTS, TRAINED_VALUES, Evaluator
from nas.findings import Findings
from nas.objectives import (
    OBJECTIVES,
    hypervolume,
    ideal_point,
    minimised,
    nondominated,
    reference_point,
    select_objectives,
)
from nas.search import SAMPLERS, Proposer, make_proposer
from nas.search.screening import Screening
from nas.setups import SetUp
from nas.training import TrainingConfig
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import REFERENCES
from search_spaces.space import SearchSpace
from studies.bench.vae import TabularEvaluator, load_vae_table
from studies.record import tables
from studies.record.axis_effects import effect_table, format_effect, importance_table
from studies.record.comparison import champion, compare, dominators
from studies.record.formats import axis_label, describe_gain, directions, format_value
from studies.record.records import StudyRecord, TrialRecord
from studies.report.figure_tables import curve_table, hypervolume_table, plotted, staircase
from studies.report.figures import curve_figure, effect_figure, pair_figure
from studies.report.overviews import cube_figure, parallel_figure
from studies.report.report import write_report
from studies.report.words import report_words
from studies.run.evaluation import Evaluation
from studies.store.store import StudyStore
from tests.fakes.dataset import noise
from tests.fakes.evaluator import EPOCHS, FakeEvaluator, Learner
from tests.fakes.findings import epoch
from tests.fakes.runs import config, run, stopping_config
from tests.helpers.command import nas

NAMES = ("psnr_db", "kl", "params")
ORIGINAL = REFERENCES["original"].resized(64)


def trial(number: int, *values: float, reference: str | None = None, **changes: Any) -> TrialRecord:
    history = [{**epoch(1, 0.5), "psnr_db": values[0] - 1}, {**epoch(2, 0.4), "psnr_db": values[0]}]
    known = dict(zip(NAMES, values, strict=True))
    return TrialRecord(
        number=number,
        state="complete",
        digest=f"{number:012d}",
        architecture=ORIGINAL,
        reference=reference,
        findings=Findings("done", known, history=history),
        **changes,
    )


def study(*found: TrialRecord, folder: Path = Path("nowhere")) -> StudyRecord:
    original = trial(0, 20, 40, 1000, reference="original")
    modified = trial(1, 22, 50, 500, reference="modified")
    trials = (original, modified, *found)
    return StudyRecord("s", select_objectives(NAMES), trials, {"space": "tiny"}, {}, folder)


BETTER = trial(2, 23, 30, 400)
SHARPEST = trial(3, 25, 60, 900)
SILENT = trial(4, 19, 0, 300)
"""A model whose latent holds nothing: its KL is 0."""
SHOWN = study(BETTER, SHARPEST, SILENT)


# Objectives


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_direction_a_source_and_words(name: str) -> None:
    one = OBJECTIVES[name]
    sources = {"static": {*STATIC_COSTS, "predicted_latency_ms"}, "device": {"latency_ms"}}
    assert name in {**sources, "training": {*TRAINED_VALUES}}[one.cost]
    low, high = 2.0, 3.0
    better, worse = (low, high) if one.direction == "minimise" else (high, low)
    equal = 1 if one.by_factor else 0
    assert one.gain(better, worse) > equal > one.gain(worse, better)
    assert one.gain(low, low) == equal
    ways = ("lower", "fewer") if one.direction == "minimise" else ("higher", "more")
    assert any(way in describe_gain(one, one.gain(better, worse)) for way in ways)
    assert not any(way in describe_gain(one, one.gain(worse, better)) for way in ways)
    assert format_value(one, low).startswith("2")
    assert ("higher is better" in axis_label(one)) == (one.direction == "maximise")
    # On the better side of any value there is room up to the ideal one.
    assert one.sign * one.ideal <= one.sign * (0.99 if one.ideal == 1 else low)


def test_the_table_says_which_objectives_are_maximised_and_which_have_no_factor() -> None:
    maximised = [name for name, one in OBJECTIVES.items() if one.direction == "maximise"]
    assert maximised == ["psnr_db", "ms_ssim", "ssim"]
    differences = [name for name, one in OBJECTIVES.items() if not one.by_factor]
    assert differences == ["kl", "psnr_db", "ms_ssim", "ssim"]
    assert (
        directions(select_objectives(["params", "macs"])) == "Lower is better in every objective."
    )
    assert directions(SHOWN.objectives) == (
        "Lower is better, except in PSNR, where higher is better."
    )


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("kl", "total_loss", "reconstruction_loss"), "total_loss is a weighted sum of"),
        (("l1", "ssim", "reconstruction_loss"), "reconstruction_loss is a weighted sum of"),
    ],
)
def test_an_objective_that_is_a_function_of_others_is_refused(
    names: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        select_objectives(names)
    for pair in (names[:2], names[1:], (names[0], names[2])):
        assert [one.name for one in select_objectives(pair)] == list(pair)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"objectives": ["total_loss", "reconstruction_loss"], "training": {"kl_weight": 0}},
            "total_loss is a function of reconstruction_loss where training.kl_weight is 0",
        ),
        (
            {"objectives": ["ssim", "reconstruction_loss"], "training": {"l1_weight": 0}},
            "reconstruction_loss is a function of ssim where training.l1_weight is 0",
        ),
        (
            {"objectives": ["kl", "psnr_db"], "search": {"early_stopping": {}}},
            "search.early_stopping: compares the first trained objective, and kl does not fall",
        ),
        ({"limits": {"psnr_db": 20}}, "'psnr_db' cannot be limited before training"),
    ],
)
def test_settings_under_which_an_objective_means_nothing_are_refused(
    changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        config(**changes)


@pytest.mark.slow
def test_a_training_records_every_trained_objective_by_epoch(tmp_path: Path) -> None:
    space = SearchSpace.load("tiny")
    architecture = space.architecture(next(iter(space.enumerate())))
    images = noise(20, architecture.image_size)
    evaluate = Evaluator(
        images,
        TrainingConfig(epochs=2, batch_size=7),
        SetUp(),
        torch.device("cpu"),
        [*TRAINED_VALUES],
        tmp_path,
    )
    *_, last = evaluate(architecture)
    assert last.objectives.keys() >= TRAINED_VALUES.keys()
    best = last.history[int(last.metrics["best_epoch"]) - 1]
    for name in TRAINED_VALUES:
        assert last.objectives[name] == best[name]
        assert last.metrics.get(name, best[name]) == best[name]
    assert best["total_loss"] == best["validation_loss"]
    expected = 1 - best["ssim"] + 0.5 * best["l1"]
    assert best["reconstruction_loss"] == pytest.approx(expected, abs=1e-6)
    assert best["total_loss"] == pytest.approx(expected + 1e-3 * best["kl"], abs=1e-6)


def test_values_with_a_unit_have_two_decimals_unless_they_are_huge() -> None:
    kl = OBJECTIVES["kl"]
    shown = [format_value(kl, value) for value in (0.0, 38.256, 1204.5, 6.6e12)]
    assert shown == ["0.00 nats", "38.26 nats", "1,204.50 nats", "6.6e+12 nats"]


# Front, hypervolume, comparison


def test_the_front_has_the_best_in_the_first_objective_first() -> None:
    assert SHOWN.front == (SHARPEST, BETTER, SILENT)
    grown = study()
    for one in (SILENT, SHARPEST, BETTER):
        grown = grown.with_trial(one)
    assert grown.front == SHOWN.front


def test_the_hypervolume_by_hand() -> None:
    # Distances from the ideal values -60, 0, 0; those of the worst reference are 40, 50, 1000.
    np.testing.assert_allclose(SHOWN.nadir, [-60 + 44, 55, 1100])
    # The KL of the sharpest is beyond the reference point.
    better, silent = (7 / 44) * (25 / 55) * (700 / 1100), (3 / 44) * 1 * (800 / 1100)
    both = (3 / 44) * (25 / 55) * (700 / 1100)
    assert SHOWN.hypervolume(SHOWN.complete) == pytest.approx(better + silent - both)
    assert hypervolume_table(SHOWN)["hypervolume"].iloc[-1] == pytest.approx(
        SHOWN.hypervolume(SHOWN.front)
    )


def test_a_worst_value_that_is_ideal_leaves_the_other_objectives_to_count() -> None:
    names = ("kl", "params")
    points = np.array([[0.0, 100.0], [0.0, 50.0]])
    nadir = reference_point(points, ideal_point(names))
    assert hypervolume(points, nadir, ideal_point(names)) == pytest.approx(60 / 110)


def test_values_better_than_ideal_count_as_ideal() -> None:
    names, nadir = ("psnr_db", "params"), np.array([-20.0, 100.0])
    perfect = minimised([[100.0, 50.0]], names)
    assert hypervolume(perfect, nadir, ideal_point(names)) == pytest.approx(0.5)


def test_a_comparison_has_factors_and_differences() -> None:
    compared = compare(SHOWN, BETTER, SHOWN.references["original"])
    assert compared.factors == {"params": 2.5}
    assert compared.differences == {"psnr_db": 3, "kl": 10}
    assert compared.verdicts == {"psnr_db": 1, "kl": 1, "params": 1}
    assert compared.dominates
    assert compared.mean_factor == 2.5
    worse = compare(SHOWN, SILENT, SHOWN.references["original"])
    assert worse.verdicts == {"psnr_db": -1, "kl": 1, "params": 1}
    assert worse.differences == {"psnr_db": -1, "kl": 40}
    assert not worse.dominates
    assert dominators(SHOWN, SHOWN.references["original"]) == (BETTER,)


def test_intervals_of_maximised_values_that_overlap_are_tied() -> None:
    def between(one: TrialRecord, low: float, high: float) -> TrialRecord:
        return replace(one, findings=replace(one.findings, intervals={"psnr_db": (low, high)}))

    original = between(SHOWN.references["original"], 19.5, 21)
    close, clear = between(BETTER, 20.5, 24), between(BETTER, 21.5, 24)
    assert compare(SHOWN, close, original).tied("psnr_db")
    assert compare(SHOWN, clear, original).verdicts["psnr_db"] == 1
    assert compare(SHOWN, between(SILENT, 18, 19), original).verdicts["psnr_db"] == -1
    assert tables.gain_of(OBJECTIVES["psnr_db"], compare(SHOWN, close, original)) == "tied"


def test_equal_differences_are_not_tied() -> None:
    same = compare(SHOWN, trial(5, 20, 40, 10), SHOWN.references["original"])
    assert not same.tied("kl")
    assert tables.gain_of(OBJECTIVES["kl"], same) == "equal"
    assert tables.change_of(OBJECTIVES["kl"], same) == "the same KL"


def test_the_champion_is_chosen_by_factors_then_by_differences_in_order() -> None:
    original = SHOWN.references["original"]
    sharper, quieter = trial(5, 24, 30, 400), trial(6, 23, 20, 400)
    assert champion(study(quieter, sharper, BETTER), original) == sharper
    assert champion(study(quieter, BETTER), original) == quieter
    smaller = trial(7, 20.5, 39, 399)
    assert champion(study(sharper, smaller), original) == smaller


def test_the_headline_names_differences_with_their_units() -> None:
    assert tables.study_headline(SHOWN) == (
        "1 of 3 architectures found dominates `original` in all 3 objectives (1 dominates "
        "`modified`), by losses of one training each, not confirmed; the best, #2, has 2.5x fewer "
        "parameters at 3.00 dB higher PSNR and 10.0 nats lower KL."
    )


# Proposals


def told(architecture: Any) -> list[float]:
    """Values that all improve with the widths of an architecture; parameters do not change."""
    stages = (*architecture.encoder.stages, *architecture.decoder.stages)
    size = sum(stage.width * stage.layers for stage in stages)
    return [10 + 5 * math.log(size), 10_000 / size - 5, 1000.0]


SPACE = SearchSpace.load("quickstart")


def proposals(sampler: str, names: Sequence[str], count: int, negated: bool) -> list[Any]:
    proposer, found = make_proposer(SPACE, sampler, names, 5), []
    if sampler == "pareto":
        rng = np.random.default_rng(0)
        earlier = [SPACE.sample(rng) for _ in range(4)]
        architectures = [SPACE.architecture(assignment) for assignment in earlier]
        values = [told(architecture) for architecture in architectures]
        signs = [-1 if negated else 1, 1, 1]
        proposer.warm(earlier, architectures, (np.array(values) * signs).tolist())
    for _ in range(count):
        proposal = proposer.propose()
        assert proposal is not None
        found.append(proposal.architecture)
        psnr_db, *others = told(proposal.architecture)
        proposer.tell(found[-1].digest, [-psnr_db if negated else psnr_db, *others])
    return found


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(sampler, marks=[pytest.mark.slow] * (sampler == "pareto"))
        for sampler in SAMPLERS
    ],
)
def test_a_maximised_objective_is_proposed_for_as_its_negative_is_minimised(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    negative = replace(OBJECTIVES["psnr_db"], name="negative", direction="minimise", ideal=-60.0)
    monkeypatch.setitem(OBJECTIVES, "negative", negative)
    one = proposals(sampler, NAMES, 16, negated=False)
    other = proposals(sampler, ("negative", *NAMES[1:]), 16, negated=True)
    assert [a.digest for a in one] == [a.digest for a in other]


def test_a_maximised_objective_has_the_front_and_volume_of_its_negative(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    negative = replace(OBJECTIVES["psnr_db"], name="negative", direction="minimise", ideal=-60.0)
    monkeypatch.setitem(OBJECTIVES, "negative", negative)
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.uniform((15, 0, 100), (30, 60, 900), (12, 3))
        found = []
        for names, sign in ((NAMES, 1), (("negative", *NAMES[1:]), -1)):
            stored = minimised(points * [sign, 1, 1], names)
            nadir = reference_point(stored, ideal_point(names))
            volume = hypervolume(stored, nadir, ideal_point(names))
            found.append((nondominated(stored).tolist(), volume))
        assert found[0] == found[1]
        assert 0 < found[0][1] < 1


@pytest.mark.parametrize("sampler", ["pareto", "tpe", "nsga2", "nsga3"])
@pytest.mark.slow
def test_samplers_that_learn_move_to_higher_psnr(sampler: str) -> None:
    names = ("psnr_db", "kl") if sampler == "pareto" else NAMES[:2]
    proposer, found = make_proposer(SPACE, sampler, names, 1), []
    for _ in range(24 if sampler == "pareto" else 90):
        proposal = proposer.propose()
        assert proposal is not None
        values = told(proposal.architecture)[:2]
        found.append(values[0])
        proposer.tell(proposal.architecture.digest, values)
    rng = np.random.default_rng(0)
    chance = [told(SPACE.architecture(SPACE.sample(rng)))[0] for _ in range(200)]
    assert np.mean(found[-8:]) > np.mean(chance) + np.std(chance)


def test_the_learned_value_of_a_stopped_training_is_extrapolated_by_differences() -> None:
    proposer = make_proposer(SPACE, "pareto", ("psnr_db", "params"), 0)
    rng = np.random.default_rng(0)
    for final in (20.0, 22.0, 24.0):
        assignment = SPACE.sample(rng)
        architecture = SPACE.architecture(assignment)
        proposer.register(assignment, architecture)
        proposer.observe(architecture.digest, 1, final - 4)
        proposer.tell(architecture.digest, [final, 10.0])
    stopped = SPACE.sample(rng)
    digest = SPACE.architecture(stopped).digest
    proposer.register(stopped, SPACE.architecture(stopped))
    proposer.observe(digest, 1, 15.0)
    proposer.tell(digest, None)
    engine: Any = proposer._engine
    assert engine._history.training_data()[1].tolist() == [-20, -22, -24, -19]


@pytest.mark.slow
def test_a_second_trained_objective_is_predicted_on_its_own_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predicted: list[Any] = []
    undominated = Screening.undominated

    def noted(screening: Screening, predictions: Any) -> Any:
        predicted.append(predictions.costs)
        return undominated(screening, predictions)

    monkeypatch.setattr(Screening, "undominated", noted)
    found = proposals("pareto", NAMES, 13, negated=False)
    known = [told(architecture)[1] for architecture in found]
    # The first column holds the KL itself, the second the logarithm of the parameters.
    kl = predicted[-1][:, :, 0]
    assert 0.5 * max(known) < kl.max() < 2 * max(known)
    near = (max(known) - min(known)) / 5  # the logarithm of a KL below 0 would be -28
    assert min(known) - near < kl.min() < min(known) + near
    np.testing.assert_allclose(predicted[-1][:, :, 1], math.log(1000), rtol=1e-3)


# Studies


class Measured(FakeEvaluator):
    """Finds PSNR and KL as well; the KL of every third architecture is 0."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        number = int(architecture.digest, 16)
        values = {"psnr_db": 15 + number % 1009 / 100, "kl": (number % 3) * (number % 97) / 4}
        for findings in super().__call__(architecture, known):
            if findings.step == "static":
                yield findings
                continue
            history = [{**one, **values} for one in findings.history]
            yield replace(findings, objectives={**findings.objectives, **values}, history=history)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored")
    asked = config(objectives=NAMES, search={"sampler": "random", "trials": 24})
    run(root, asked, Measured())
    return root


def test_optuna_has_the_true_values_and_finds_the_same_front(stored: Path) -> None:
    store = StudyStore.open(stored, "s")
    record, optuna_study = store.record(), store.study
    kinds = optuna.study.StudyDirection
    assert optuna_study.directions == [kinds.MAXIMIZE, kinds.MINIMIZE, kinds.MINIMIZE]
    for trial_, frozen in zip(record.trials, optuna_study.trials, strict=True):
        assert frozen.values == [trial_.objectives[name] for name in NAMES]
    best = {one.user_attrs["candidate"]["digest"] for one in optuna_study.best_trials}
    assert best == {one.digest for one in record.front}
    assert any(one.objectives["kl"] == 0 for one in record.complete)


@pytest.mark.slow
def test_a_study_of_maximised_objectives_is_resumed(stored: Path, tmp_path: Path) -> None:
    asked = config(objectives=NAMES, search={"sampler": "pareto", "trials": 14})
    whole = run(tmp_path / "whole", asked, Measured())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", asked, Measured(interrupt_on=14))
    resumed = run(tmp_path / "cut", asked, Measured())
    assert [one.digest for one in resumed.trials] == [one.digest for one in whole.trials]


def test_a_value_that_no_factor_can_have_fails_its_trial() -> None:
    values = {"psnr_db": -1.0, "kl": 0.0, "l1": 0.0}
    evaluated = Evaluation(BETTER, Findings("done", values))
    assert evaluated.verdict(["psnr_db", "kl"]) == ("complete", None)
    assert evaluated.verdict(["psnr_db", "l1"]) == ("failed", "l1 is 0.0")


def test_best_is_the_highest_psnr_within_limits(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = StudyStore.open(stored, "s").record()

    def best(*options: str) -> int:
        given = ["study", "best", "s", "--root", str(stored), *options]
        return nas(*given, "-o", str(tmp_path / "best"))

    def result() -> dict[str, float]:
        read: dict[str, float] = json.loads((tmp_path / "best/result.json").read_text())[
            "objectives"
        ]
        return read

    assert best() == 0
    assert result()["psnr_db"] == max(one.objectives["psnr_db"] for one in record.complete)
    assert best("--by", "kl", "--min-psnr-db", "17") == 0
    fitting = [one.objectives for one in record.complete if one.objectives["psnr_db"] >= 17]
    assert result()["kl"] == min(one["kl"] for one in fitting)
    assert best("--max-kl", "0") == 0
    assert result()["kl"] == 0
    capsys.readouterr()
    assert best("--min-psnr-db", "59", "--max-kl", "30") == 2
    values = capsys.readouterr().err.strip().partition(" has ")[2]
    psnr_db, kl = (part.split()[-1] for part in values.split(", "))
    assert best("--min-psnr-db", psnr_db, "--max-kl", kl) == 0
    # A metric that is recorded beside the objectives can be asked for too.
    assert best("--by", "ms_ssim") == 0
    assert best("--max-ms-ssim", "1") == 2


class Sharpening(Learner):
    """A learner whose PSNR rises to a value made up from the digest."""

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        for findings in super().__call__(architecture, known):
            if not findings.history:
                yield findings
                continue
            history = [
                {**one, "psnr_db": 40 - 10 * one["reconstruction_loss"]} for one in findings.history
            ]
            values = {**findings.objectives, "psnr_db": history[-1]["psnr_db"]}
            yield replace(findings, objectives=values, history=history)


@pytest.mark.slow
def test_trainings_of_low_psnr_are_stopped_where_those_of_high_loss_would_be(
    tmp_path: Path,
) -> None:
    by_loss = run(tmp_path / "loss", stopping_config(), Learner({}))
    names = ["psnr_db", "params"]
    by_psnr = run(tmp_path / "psnr", stopping_config(objectives=names), Sharpening({}))
    assert [one.state for one in by_psnr.trials] == [one.state for one in by_loss.trials]
    reasons = [one.reason for one in by_psnr.trials if one.state == "stopped"]
    assert len(reasons) >= 4
    assert all("its PSNR of" in (one or "") for one in reasons)
    assert all((one or "").endswith("dB is too low for its costs") for one in reasons)
    assert f"of {EPOCHS}: its reconstruction loss of 1." in str(
        next(one.reason for one in by_loss.trials if one.state == "stopped")
    )


def test_the_sampler_gets_the_first_trained_objective_of_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: dict[str, dict[int, float]] = {}

    def observe(self: Proposer, digest: str, number: int, value: float) -> None:
        observed.setdefault(digest, {})[number] = value

    monkeypatch.setattr(Proposer, "observe", observe)
    record = run(tmp_path, config(objectives=["params", "psnr_db"]), Sharpening({}))
    for one in record.complete:
        assert observed[one.digest] == {int(e["epoch"]): e["psnr_db"] for e in one.history}


def test_a_history_without_the_first_trained_objective_is_damage(stored: Path) -> None:
    journal = stored / "s" / "journal.log"
    text = journal.read_text()
    lines = text.splitlines()
    place = max(i for i, line in enumerate(lines) if '"history":[{' in line)
    head, _, tail = lines[place].rpartition('"psnr_db"')
    lines[place] = f'{head}"other"{tail}'
    journal.write_text("\n".join(lines) + "\n")
    try:
        (line,) = StudyStore.open(stored, "s").record().damaged
        assert "psnr_db is missing" in line
    finally:
        journal.write_text(text)


def test_the_table_of_trained_models_has_all_trained_objectives() -> None:
    table = load_vae_table()
    record = next(one for one in table.records.values() if not one["failure"])
    architecture = Architecture.from_dict(json.loads(record["architecture"]))
    *_, last = TabularEvaluator(table, ["psnr_db", "kl", "params"])(architecture)
    best = int(last.metrics["best_epoch"]) - 1
    assert last.objectives["psnr_db"] == record["psnr_db"][best]
    assert last.objectives["kl"] == record["kl"][best]
    assert [one["psnr_db"] for one in last.history] == record["psnr_db"]
    assert "ms_ssim" not in last.objectives


# Report


def test_effects_of_values_without_factors_are_differences() -> None:
    found = [
        trial(number, 20 + 2 * (number % 2) + 0.1 * (number % 4), 0.0, 10.0,
              assignment={"size": ["small", "large"][number % 2]})
        for number in range(12)
    ]  # fmt: skip
    record = StudyRecord("s", select_objectives(NAMES), tuple(found), {}, {}, Path("nowhere"))
    importance = importance_table(record)
    assert importance["psnr_db"].tolist() == [pytest.approx(0.99, abs=0.02)]
    assert importance.loc["size", "kl"] == 0  # all are 0: no effect, and no logarithm
    table = effect_table(record).set_index("choice")
    # The means are 20.1 and 22.2.
    assert table.loc["large", "psnr_db"] == pytest.approx(1.05)
    assert table.loc["small", "psnr_db"] == pytest.approx(-1.05)
    assert format_effect(table.loc["large"].to_dict(), "psnr_db") == "+1.05 dB"
    assert format_effect(table.loc["large"].to_dict(), "kl") == "(0 nats)"
    drawn = effect_figure(table.reset_index(), select_objectives(NAMES)).data[0]
    rows = dict(zip(drawn.y, drawn.z, strict=True))
    assert rows["size: large"][0] < 0 < rows["size: small"][0]  # blue is better: higher PSNR


def test_figures_show_the_direction_of_each_axis() -> None:
    psnr_db, kl, params = SHOWN.objectives
    points = points_of(SHOWN)
    figure = pair_figure(points, params, psnr_db)
    assert figure.layout.yaxis.title.text == "PSNR (dB), higher is better"
    assert figure.layout.xaxis.title.text == "Parameters"
    assert staircase(points, "params", "psnr_db")["params"].tolist() == [300, 400, 900]
    assert staircase(points, "psnr_db", "kl")["psnr_db"].tolist() == [25, 23, 19]
    assert list(figure.data[0].y) == [19, 23, 25]
    parallel = parallel_figure(points, SHOWN.objectives)
    front = next(trace for trace in parallel.data if trace.name == "front")
    assert parallel.layout.xaxis.ticktext[0] == "PSNR (dB)<br>higher is better"
    heights = dict(zip(front.meta[::4], front.y[::4], strict=True))
    assert heights["#3"] == 0  # the best PSNR is at the bottom
    assert heights["#4"] == 1
    cube = cube_figure(points, (kl, params, psnr_db))
    assert cube.layout.coloraxis.reversescale
    assert [one["reversed"] for one in cube.layout.meta["axes"]] == [False, False, True]
    assert not cube_figure(points, (psnr_db, kl, params)).layout.coloraxis.reversescale


def points_of(record: StudyRecord) -> pd.DataFrame:
    from studies.report.figure_tables import points_table

    return points_table(record)


def test_the_worst_of_a_maximised_objective_is_always_drawn() -> None:
    found = [trial(number, 21, 45, 600 + number) for number in range(10, 40)]
    dull = found[13] = trial(23, 1, 45, 623)
    assert dull in plotted(study(*found), limit=8)


def test_curves_show_the_first_trained_objective() -> None:
    table = curve_table(SHOWN)
    assert table.loc[table["name"] == "#2", "objective"].tolist() == [22, 23]
    figure = curve_figure(table, OBJECTIVES["psnr_db"])
    assert figure.layout.title.text == "PSNR during training"
    assert figure.layout.yaxis.title.text == "PSNR (dB), higher is better"
    assert len(figure.data) == 5  # no training losses


@pytest.mark.slow
def test_the_report_explains_directions_differences_and_ideal_values(tmp_path: Path) -> None:
    record = replace(SHOWN, folder=tmp_path)
    page = write_report(record).read_text()
    assert "Lower is better, except in PSNR, where higher is better." in page
    assert "Lower left" not in page
    assert "For PSNR and KL it is the difference of the two values." in page
    assert "the ideal values (PSNR 60 dB, otherwise 0)" in page
    assert "3.00 dB higher" in page
    assert "40.0 nats lower" in page
    assert "1.00 dB lower" in page
    usual = replace(record, objectives=select_objectives(["params", "kl"]))
    page = write_report(usual).read_text()
    assert "Lower left is better in every plot." in page
    assert "1.1 times the value of the worse reference model" in page


def test_the_terminal_says_where_higher_is_better(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nas("study", "show", "s", "--root", str(stored)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Lower is better, except in PSNR, where higher is better." in shown
    assert nas("study", "effects", "s", "--root", str(stored), "--axes", "2") in (0, 2)
    assert nas("study", "list", "--root", str(stored)) == 0


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({}, "of a sample of the latent"),
        ({"evaluate_at": "sample"}, "of a sample of the latent"),
        ({"evaluate_at": "mean"}, "of the mean of the latent"),
    ],
)
def test_the_report_says_whether_losses_are_of_a_sample_or_of_the_mean(
    training: dict[str, Any], words: str
) -> None:
    record = replace(SHOWN, config={"space": "tiny", "training": training})
    assert dict(report_words(record)["facts"])["Losses"] == words


def test_a_study_goes_on_only_with_losses_of_the_same_latent(tmp_path: Path) -> None:
    asked = {"objectives": NAMES, "search": {"sampler": "random", "trials": 1}}
    run(tmp_path, config(**asked), Measured())
    run(tmp_path, config(**asked, training={"evaluate_at": "sample"}), Measured())
    with pytest.raises(UserError, match=r'training\.evaluate_at was "sample", now "mean"'):
        run(tmp_path, config(**asked, training={"evaluate_at": "mean"}), Measured())
