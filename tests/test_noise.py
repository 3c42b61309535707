"""Seed noise: its estimate, intervals, tests of differences, and the claims of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from nas.objectives import select_objectives
from studies.confirm.plan import Plan
from studies.record.comparison import champion, compare, dominators, found
from studies.record.confirmed import best_weights, confirmation_notes, confirmation_table, luck
from studies.record.noise import Mean, SeedNoise, certain_pairs, holm
from studies.record.records import SeedRun, StudyRecord, TrialRecord
from studies.record.tables import study_headline
from tests.fakes.records import NAMES, trial

LOSS = "reconstruction_loss"


def test_the_noise_is_pooled_over_models_of_any_loss() -> None:
    noise = SeedNoise.pooled([(0.4, 0.44), (4.0, 4.4, 4.2), (0.7,), ()], duration_s=7.0)
    assert noise is not None
    squares = math.log(1.1) ** 2 / 2 + float(np.var(np.log([4.0, 4.4, 4.2])) * 3)
    assert noise.deviation == pytest.approx(math.sqrt(squares / 3))
    assert (noise.freedom, noise.models, noise.trainings, noise.duration_s) == (3, 2, 5, 7.0)
    assert SeedNoise.pooled([(0.4,), (0.5,)]) is None


def test_an_interval_is_that_of_students_t_with_the_pooled_freedom() -> None:
    noise = SeedNoise(0.01, freedom=9, models=3, trainings=12)
    low, high = noise.interval(Mean(0.5, 4))
    reach = float(t.ppf(0.975, 9)) * 0.01 / 2
    assert (low, high) == pytest.approx((0.5 * math.exp(-reach), 0.5 * math.exp(reach)))
    assert noise.interval(Mean(0.5, 1))[1] > high
    assert SeedNoise(0.0, 1, 1, 2).interval(Mean(0.5, 1)) == (0.5, 0.5)


def test_the_p_value_is_that_of_a_t_test_of_the_difference() -> None:
    noise = SeedNoise(0.02, freedom=5, models=5, trainings=10)
    (found_p,) = noise.p_values([Mean(0.48, 2)], [Mean(0.50, 3)])[0]
    size = math.log(0.50 / 0.48) / (0.02 * math.sqrt(1 / 2 + 1 / 3))
    assert found_p == pytest.approx(2 * t.sf(size, 5))
    exact = SeedNoise(0.0, 1, 1, 2)
    assert exact.p_values([Mean(0.4, 2), Mean(0.5, 2)], [Mean(0.5, 2)]).ravel().tolist() == [0, 1]


def test_intervals_that_overlap_may_still_differ() -> None:
    noise = SeedNoise(0.01, freedom=30, models=10, trainings=40)
    one, other = Mean(0.500, 4), Mean(0.508, 4)
    assert noise.interval(one)[1] > noise.interval(other)[0]
    assert noise.differ(one, other)
    assert not noise.differ(one, Mean(0.504, 4))


def test_holm_rejects_step_by_step() -> None:
    assert holm(np.array([0.06, 0.01, 0.02]), 0.05).tolist() == [False, True, True]
    assert holm(np.array([0.04, 0.01, 0.03]), 0.05).tolist() == [False, True, False]
    assert holm(np.array([0.02, 0.02]), 0.05).tolist() == [True, True]
    assert holm(np.array([0.03, 0.001, 0.026]), 0.05).tolist() == [False, True, False]
    assert holm(np.array([]), 0.05).tolist() == []


def test_more_comparisons_need_larger_differences() -> None:
    noise = SeedNoise(0.01, freedom=20, models=10, trainings=30)
    alone = {0: Mean(0.485, 3)}
    assert certain_pairs(noise, alone, {"original": Mean(0.5, 3)}, 0.05) == {(0, "original")}
    crowd = alone | {n: Mean(0.5, 3) for n in range(1, 200)}
    assert certain_pairs(noise, crowd, {"original": Mean(0.5, 3)}, 0.05) == set()
    assert certain_pairs(noise, {}, {"original": Mean(0.5, 3)}, 0.05) == set()


# -- Trials with further trainings -------------------------------------------------------------


def run(seed: int, loss: float, test: float = 0.9, **changes: object) -> SeedRun:
    values = {LOSS: loss, "total_loss": loss + 0.1}
    one = SeedRun(seed, values, {LOSS: test, "total_loss": test}, 1, 2.0)
    return replace(one, **changes)  # type: ignore[arg-type]


def confirmed(one: TrialRecord, *losses: float) -> TrialRecord:
    return one.with_runs([run(seed, loss) for seed, loss in enumerate(losses, start=1)])


def study(*trials: TrialRecord) -> StudyRecord:
    record = StudyRecord("s", select_objectives(NAMES), trials, {}, {}, Path("nowhere"))
    return record.with_intervals()


def test_a_candidates_mean_rests_on_further_seeds_a_references_on_all() -> None:
    lucky, original = trial(2, 0.30, 500), trial(0, 0.50, 1000, "original")
    one, reference = confirmed(lucky, 0.40, 0.42), confirmed(original, 0.52, 0.54)
    assert one.objectives[LOSS] == pytest.approx(0.41)
    assert one.samples == {LOSS: (0.40, 0.42)}
    assert one.metrics[f"{LOSS}_in_search"] == one.observed(LOSS) == 0.30
    assert one.metrics[f"{LOSS}_on_test"] == pytest.approx(0.9)
    assert one.metrics["seeds"] == 2
    assert reference.objectives[LOSS] == pytest.approx(0.52)
    assert reference.samples == {LOSS: (0.50, 0.52, 0.54)}
    assert reference.metrics["seeds"] == 3
    assert one.findings.timings_s["confirmation"] == 4.0


def test_a_training_that_failed_does_not_count_but_is_told() -> None:
    failed = run(2, 9.0, reason="diverged in epoch 1")
    one = trial(2, 0.30, 500).with_runs([run(1, 0.40), failed])
    assert one.objectives[LOSS] == pytest.approx(0.40)
    assert len(one.runs) == 2
    (note,) = confirmation_notes(study(one))
    assert note == "Further trainings failed: #2 with seed 2 (diverged in epoch 1)."
    none = trial(2, 0.30, 500).with_runs([failed])
    assert not none.confirmed
    assert none.objectives[LOSS] == 0.30


def test_every_loss_gets_an_interval_wide_where_it_is_one_training() -> None:
    record = study(
        confirmed(trial(0, 0.50, 1000, "original"), 0.51, 0.52),
        confirmed(trial(2, 0.45, 500), 0.46, 0.47),
        trial(3, 0.48, 400),
    )
    assert record.noise is not None
    assert (record.noise.freedom, record.noise.models, record.noise.trainings) == (3, 2, 5)
    widths = [math.log(high / low) for low, high in (t.intervals[LOSS] for t in record.trials)]
    assert widths[2] == pytest.approx(widths[0] * math.sqrt(3))
    assert widths[2] == pytest.approx(widths[1] * math.sqrt(2))
    for one in record.trials:
        assert one.intervals[LOSS] == pytest.approx(record.noise.interval(one.mean_of(LOSS)))


def test_before_the_confirmation_claims_say_that_they_are_not_confirmed() -> None:
    record = study(trial(0, 0.50, 1000, "original"), trial(2, 0.49, 500))
    assert record.noise is None
    assert LOSS not in record.trials[1].intervals
    assert "by losses of one training each, not confirmed; the" in study_headline(record)
    assert confirmation_notes(record) == []


def test_a_difference_within_the_noise_is_tied_and_nothing_is_dominated() -> None:
    original = confirmed(trial(0, 0.50, 1000, "original"), 0.51, 0.49)
    close, far = (confirmed(trial(n, 0.4, 500), *losses) for n, losses in
                  ((2, (0.494, 0.498)), (3, (0.40, 0.41))))  # fmt: skip
    record = study(original, close, far)
    reference = record.references["original"]
    tied, sure = (compare(record, record.trial(n), reference) for n in (2, 3))
    assert tied.verdicts == {LOSS: 0, "params": 1}
    assert tied.tied(LOSS)
    assert not tied.dominates
    assert sure.verdicts == {LOSS: 1, "params": 1}
    assert [one.number for one in dominators(record, reference)] == [3]
    assert "not confirmed" not in study_headline(record)
    worse = confirmed(trial(4, 0.4, 500), 0.60, 0.61)
    record = study(original, close, far, worse)
    assert compare(record, record.trial(4), reference).verdicts[LOSS] == -1


def test_among_equals_the_champion_is_the_one_that_is_worse_in_fewer_objectives() -> None:
    original = confirmed(trial(0, 0.50, 1000, "original"), 0.51, 0.49)
    tied = confirmed(trial(2, 0.4, 500), 0.500, 0.502)
    small_and_worse = confirmed(trial(3, 0.4, 1), 0.70, 0.71)
    record = study(original, tied, small_and_worse)
    best = champion(record, record.references["original"])
    assert best is not None
    assert best.number == 2
    assert "at no certain change in reconstruction loss" in study_headline(record)


def test_a_confirmed_model_comes_before_one_that_is_not() -> None:
    original = confirmed(trial(0, 0.50, 1000, "original"), 0.51, 0.49)
    sure, lucky = confirmed(trial(2, 0.5, 500), 0.500, 0.502), trial(3, 0.495, 1)
    record = study(original, sure, lucky)
    best = champion(record, record.references["original"])
    assert best is not None
    assert best.number == 2


def test_the_luck_of_the_search_is_told() -> None:
    record = study(
        confirmed(trial(0, 0.50, 1000, "original"), 0.60, 0.60),  # chosen by no loss
        confirmed(trial(2, 0.40, 500), 0.41, 0.43),
        confirmed(trial(3, 0.40, 400), 0.40, 0.42),
        trial(4, 0.39, 300),
    )
    assert luck(record) == pytest.approx(math.sqrt(1.05 * 1.025) - 1)
    notes = " ".join(confirmation_notes(record))
    assert (
        "Of the 2 best candidates the search saw values of reconstruction loss that were on "
        "average 3.7 % too low."
    ) in notes
    assert "7 trainings of 3 models (4 degrees of freedom); further trainings took 12 s" in notes
    assert "1 member of the front is not confirmed" in notes
    assert "`nas study confirm s --trial 4`" in notes
    table = confirmation_table(record)
    assert table["name"].tolist() == ["original", "#2", "#3"]
    assert table["observed"].tolist() == [0.50, 0.40, 0.40]
    assert table["seeds"].tolist() == [3, 2, 2]


def test_the_best_weights_are_those_of_the_lowest_validation_loss() -> None:
    one = replace(trial(2, 0.40, 500), number=2)
    findings = replace(one.findings, metrics={"total_loss": 0.49})
    one = replace(one, findings=findings)
    assert best_weights(one, "total_loss") is None  # the search's, which are the only ones
    assert best_weights(confirmed(one, 0.41, 0.38), "total_loss") == 2
    assert best_weights(confirmed(one, 0.41, 0.40), "total_loss") is None


# -- Claims of simulated studies ---------------------------------------------------------------

SIGMA = 0.01
CHOSEN = 4


@dataclass
class Simulation:
    """Made-up losses of known means: candidates are trained once, the best again."""

    rng: np.random.Generator
    truths: Mapping[int, float]

    def loss(self, number: int) -> float:
        return self.truths[number] * math.exp(float(self.rng.normal(0, SIGMA)))

    def searched(self) -> list[TrialRecord]:
        names = {0: "original", 1: "modified"}
        return [
            trial(n, self.loss(n), 1000 if n in names else 500 - n, names.get(n))
            for n in self.truths
        ]

    def again(self, one: TrialRecord, count: int) -> TrialRecord:
        begun = replace(one, runs=())
        runs = [*one.runs, *(run(100 + i, self.loss(one.number)) for i in range(count))]
        observed = {LOSS: one.observed(LOSS)}
        findings = replace(begun.findings, objectives={**begun.objectives, **observed}, metrics={})
        return replace(begun, findings=findings, samples={}).with_runs(runs)

    def confirmed(self) -> StudyRecord:
        """Confirm as a study does: two seeds for the best ones, a third where ranks are open."""
        trials = self.searched()
        candidates = [one for one in trials if not one.reference]
        best = sorted(candidates, key=lambda one: one.objectives[LOSS])[:CHOSEN]
        chosen = {one.number for one in (*trials[:2], *best)}
        trials = [self.again(one, 2) if one.number in chosen else one for one in trials]
        record = study(*trials)
        plan = Plan(3, CHOSEN, 2, tuple(one.number for one in best), ("original", "modified"), {})
        record = replace(record, config={"training": {}})
        further = {one.number for one in contested(plan, record)}
        return study(*(self.again(one, 1) if one.number in further else one for one in trials))


def contested(plan: Plan, record: StudyRecord) -> Sequence[TrialRecord]:
    """Return the models that the plan would train with one more seed each."""
    running: set[tuple[str, int]] = set()
    wanted: dict[str, TrialRecord] = {}
    while (following := plan.next(record, running)) and following[0].digest not in wanted:
        one, seed = following
        wanted[one.digest] = one
        running.add((one.digest, seed))
    return list(wanted.values())


def wrong_claims(record: StudyRecord, truths: Mapping[int, float]) -> bool:
    """Return whether the headline or `dominators` claim anything about a loss that is not true."""
    for reference in record.references.values():
        their = truths[reference.number]
        if any(truths[one.number] >= their for one in dominators(record, reference)):
            return True
        best = champion(record, reference)
        assert best is not None
        verdict = compare(record, best, reference).verdicts[LOSS]
        if verdict * (their - truths[best.number]) < 0 or (
            verdict and truths[best.number] == their
        ):
            return True
    return False


@pytest.mark.slow
def test_at_most_one_study_in_twenty_makes_a_wrong_claim() -> None:
    rng = np.random.default_rng(0)
    wrong, claimed, possible = 0, 0, 0
    for number in range(1000):
        gains = rng.choice([0.0, 0.0, 0.01, 0.03] if number % 2 else [0.0, -0.01, 0.05], 12)
        truths = {0: 0.5, 1: 0.5} | {i + 2: 0.5 * (1 - float(g)) for i, g in enumerate(gains)}
        record = Simulation(rng, truths).confirmed()
        wrong += wrong_claims(record, truths)
        original = record.references["original"]
        better = {t.number for t in found(record) if t.confirmed and truths[t.number] < 0.48}
        claimed += len(better & {one.number for one in dominators(record, original)})
        possible += len(better)
    assert wrong <= 50
    assert possible > 500
    assert claimed / possible > 0.8


@pytest.mark.slow
def test_claims_from_the_single_training_of_the_search_would_be_wrong_far_more_often() -> None:
    rng, wrong = np.random.default_rng(1), 0
    truths = dict.fromkeys(range(14), 0.5)
    for _ in range(200):
        wrong += wrong_claims(study(*Simulation(rng, truths).searched()), truths)
    assert wrong > 150
