"""The Pareto sampler: exact improvement, prediction, and a search that uses both."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import moocore
import numpy as np
import numpy.typing as npt
import pytest

from nas.predict.known_costs import known_costs, known_limits
from nas.search import Proposer, history, make_proposer, pareto, screening
from nas.search.acquisition import BoxDecomposition
from nas.search.axis_features import AxisFeatures
from nas.search.candidates import Catalogue
from nas.search.feasibility import Feasibility
from nas.search.focus import compressed, reference_losses
from nas.search.history import History, Observation
from nas.search.interfaces import KnownLimits
from nas.search.kernel import Kernel
from nas.search.screening import Predictions, Screening
from nas.search.surrogate import QUANTILE_COUNT, fit
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace

Array = npt.NDArray[np.float64]
SPACE = SearchSpace.load("quickstart")
NAMES = ("reconstruction_loss", "params")
LOGARITHMIC = np.array([False])


def cost(architecture: Any) -> float:
    stages = (*architecture.encoder.stages, *architecture.decoder.stages)
    return float(architecture.latent_size + sum(stage.width * stage.layers for stage in stages))


def costs(architectures: Sequence[Any]) -> Array:
    return np.array([[cost(architecture)] for architecture in architectures])


def loss(architecture: Any) -> float:
    dense = int(architecture.decoder.stages[0].block == "dense")
    return 1 + 10 / math.sqrt(cost(architecture)) - 0.1 * dense


def values(architecture: Any) -> list[float]:
    return [loss(architecture), cost(architecture)]


def searched(proposer: Proposer, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        proposal = proposer.propose()
        assert proposal is not None
        found.append(proposal.architecture)
        proposer.tell(proposal.architecture.digest, values(proposal.architecture))
    return found


def test_improvement_on_one_point_has_hand_derived_volumes() -> None:
    boxes = BoxDecomposition.of(np.array([[1.0, 1.0]]), np.array([0.5]), np.array([2.0, 2.0, 1.0]))
    candidates = np.array([[1.0, 1.0], [0.0, 1.0], [1.5, 1.5], [3.0, 0.0]])
    losses = np.array([[0.25, 0.75], [0.25, 0.75], [0.25, 0.25], [0.0, 0.0]])
    # Second: one square with attained loss 0.5, one with 1: (0.25 + 0 + 0.75 + 0.25) / 2.
    np.testing.assert_allclose(
        boxes.expected_improvement(candidates[None], losses),
        [0.125, 0.625, 0.0625, 0.0],
        atol=1e-12,
    )


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_improvement_is_the_difference_of_hypervolumes(axes: int) -> None:
    rng = np.random.default_rng(axes)
    points, reference = rng.random((30, axes + 1)), np.full(axes + 1, 1.1)
    boxes = BoxDecomposition.of(points[:, :-1], points[:, -1], reference)
    candidates, losses = rng.random((20, axes)), rng.random((20, 3))
    before = moocore.hypervolume(points, ref=reference)
    expected = [
        np.mean([moocore.hypervolume([*points, [*c, x]], ref=reference) - before for x in row])
        for c, row in zip(candidates, losses, strict=True)
    ]
    np.testing.assert_allclose(
        boxes.expected_improvement(candidates[None], losses), expected, atol=1e-12
    )


def test_the_bounded_choice_is_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    points, reference = rng.random((40, 4)), np.full(4, 1.1)
    boxes = BoxDecomposition.of(points[:, :-1], points[:, -1], reference)
    candidates, losses, weights = rng.random((600, 3)), rng.random((600, 4)), rng.random(600)
    scores = boxes.expected_improvement(candidates[None], losses) * weights
    best = boxes.best(candidates[None], losses, weights, 5)
    np.testing.assert_array_equal(best, np.argsort(-scores)[:5])


@pytest.mark.parametrize("uncertain", [1, 2, 3])
def test_uncertain_costs_improve_by_the_mean_of_their_variants(uncertain: int) -> None:
    rng = np.random.default_rng(0)
    points, reference = rng.random((40, 4)), np.full(4, 1.1)
    boxes = BoxDecomposition.of(points[:, :-1], points[:, -1], reference)
    costs, losses = np.repeat(rng.random((1, 50, 3)), 4, axis=0), rng.random((50, 4))
    costs[:, :, :uncertain] = rng.random((4, 50, uncertain))
    expected = np.mean([boxes.expected_improvement(one[None], losses) for one in costs], axis=0)
    np.testing.assert_allclose(boxes.expected_improvement(costs, losses), expected, atol=1e-12)


def test_without_points_the_improvement_is_the_volume_up_to_the_reference() -> None:
    boxes = BoxDecomposition.of(np.zeros((0, 1)), np.zeros(0), np.array([2.0, 1.0]))
    np.testing.assert_allclose(
        boxes.expected_improvement(np.array([[[1.5]]]), np.array([[0.5]])), [0.25]
    )


def test_a_power_law_is_learned_with_a_width_that_covers_it() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 4))
    truth = np.exp(0.5 * features[:, 0] - 0.2 * features[:, 1] + 0.05 * np.sin(features[:, 2]))
    samples = fit(features[:60], truth[:60]).predict(features[60:])
    assert samples.shape == (20, QUANTILE_COUNT)
    assert (np.diff(samples, axis=1) >= 0).all()
    middle = np.median(samples, axis=1)
    assert np.corrcoef(middle, truth[60:])[0, 1] > 0.98


def test_one_value_for_all_is_predicted_as_it_is() -> None:
    features = np.arange(12.0).reshape(6, 2)
    np.testing.assert_allclose(fit(features, np.full(6, 3.0)).predict(features), 3.0, rtol=1e-3)


def test_the_noise_that_is_told_is_smoothed_and_no_other() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2))
    observed = np.exp(0.2 * features[:, 0] + 0.05 * rng.normal(size=60))

    def left(noise: float | None, values: Array, linear: bool = False) -> float:
        middle = np.median(fit(features, values, linear, noise).predict(features), axis=1)
        return float((np.log(middle) - np.log(observed)).std())

    assert left(0.05, observed) == pytest.approx(0.05, rel=0.2)
    assert left(0.001, observed) < 0.02
    logarithms = np.log(observed)
    same = fit(features, logarithms, True, 0.05).predict(features)
    relative = fit(features, observed, False, 0.05).predict(features)
    np.testing.assert_allclose(np.exp(same), relative)  # absolute where values are linear


@pytest.mark.parametrize("noise", [None, 0.01, 0.3])
def test_the_gradient_of_the_likelihood_is_that_of_its_values(noise: float | None) -> None:
    from scipy.optimize import approx_fprime

    rng = np.random.default_rng(0)
    points, observed = rng.normal(size=(20, 3)), rng.normal(size=20)

    def likelihood(theta: Array) -> tuple[float, Array]:
        return Kernel.of(theta).negative_log_likelihood(points, observed, noise)

    def value(theta: Array) -> float:
        return likelihood(theta)[0]

    theta = 0.5 * rng.normal(size=5)
    expected = approx_fprime(theta, value, 1e-6)
    np.testing.assert_allclose(likelihood(theta)[1], expected, rtol=1e-4, atol=1e-5)


def test_features_tell_all_architectures_of_a_space_apart() -> None:
    rng = np.random.default_rng(0)
    assignments = [SPACE.sample(rng) for _ in range(200)]
    rows = AxisFeatures(SPACE)(assignments)
    digests = {SPACE.architecture(assignment).digest for assignment in assignments}
    assert len(np.unique(rows, axis=0)) >= len(digests)


def test_the_sampler_finds_more_than_chance() -> None:
    def volume(sampler: str) -> float:
        options: dict[str, Any] = {"costs": costs, "screen": 100} if sampler == "pareto" else {}
        proposer = make_proposer(SPACE, sampler, NAMES, 0, **options)
        points = np.array([values(architecture) for architecture in searched(proposer, 25)])
        return float(moocore.hypervolume(np.log(points), ref=np.log([3.0, 10_000.0])))

    assert volume("pareto") > volume("random")


def test_the_loss_is_learned_from_observations() -> None:
    def partly(architectures: Sequence[Any]) -> Array:
        return np.column_stack([costs(architectures), np.full(len(architectures), np.nan)])

    names = (*NAMES, "latency_ms")
    proposer = make_proposer(SPACE, "pareto", names, 0, partly, start=4, screen=100)
    for _ in range(8):
        proposal = proposer.propose()
        assert proposal is not None
        found = values(proposal.architecture)
        proposer.tell(proposal.architecture.digest, [*found, found[1] ** 0.5])


def test_of_very_many_candidates_the_later_and_an_even_choice_teach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taught: list[Array] = []

    def noted(features: Array, known: Array, *more: Any) -> Any:
        taught.append(known)
        return fit(features, known, *more)

    monkeypatch.setattr(history, "_MOST_POINTS", 20)
    monkeypatch.setattr(screening, "fit", noted)
    # With the focus on low costs no loss is compressed.
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=50, focus="cheap")
    found = searched(proposer, 30)
    told = [loss(architecture) for architecture in found]
    assert taught[9].tolist() == told[:19]
    assert taught[10].tolist() == told[:20]
    last = taught[-1].tolist()  # after 29 of them
    assert len(last) == 20
    assert last[10:] == told[19:29]
    assert last[:10] == told[0:19:2]


def test_refinement_finds_higher_improvements_and_loses_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    highest: list[float] = []
    best = pareto._best

    def noted(undominated: BoxDecomposition, predictions: Any, found: Any) -> Any:
        scores = undominated.expected_improvement(predictions.costs, predictions.losses)
        highest.append(float((scores * predictions.feasibility).max()))
        return best(undominated, predictions, found)

    monkeypatch.setattr(pareto, "_best", noted)
    assert SPACE.size > pareto._COMPLETE
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=20, refine=4)
    gains = []
    for _ in range(30):
        searched(proposer, 1)
        if highest:
            assert len(highest) == 5
            assert np.diff(np.log(highest)).min() > -1e-9  # but for rounding
            gains.append(highest[-1] / highest[0])
        highest.clear()
    assert len(gains) == 20
    assert np.median(gains) > 1.1


def test_a_cost_that_is_the_same_for_all_leaves_improvements() -> None:
    observed = Screening(
        exact=np.array([True, True]),
        loss=fit(np.arange(5.0)[:, None], np.arange(1.0, 6.0)),
        costs={},
        feasibility=Feasibility(History(0, np.zeros(3, dtype=bool)), None),
        attained=np.array([[0.5, 7.0, 0.9]]),
        reference_loss=1.0,
    )
    known = Predictions(np.array([[[0.2, 7.0]]]), np.array([[0.5]]), np.ones(1))
    boxes = observed.undominated(known)
    assert boxes.expected_improvement(known.costs, known.losses)[0] > 0


def test_several_proposals_may_be_open_and_none_is_repeated() -> None:
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=100)
    searched(proposer, 12)
    waiting = [proposer.propose() for _ in range(4)]
    assert len({one.architecture.digest for one in waiting if one}) == 4
    assert proposer.seen == 16


@pytest.mark.slow
def test_limits_are_learned_from_what_missed_them() -> None:
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=200)
    excess = []
    for _ in range(30):
        proposal = proposer.propose()
        assert proposal is not None
        found = values(proposal.architecture)
        excess.append(found[1] / 1000 - 1)
        rejected = excess[-1] > 0
        proposer.tell(
            proposal.architecture.digest, None if rejected else found, {"params": excess[-1]}
        )
    assert max(excess[:5]) > 0
    assert max(excess[-10:]) <= 0


def test_a_resumed_search_goes_the_way_it_would_have_gone() -> None:
    def begin() -> Proposer:
        return make_proposer(SPACE, "pareto", NAMES, 3, costs, screen=100)

    whole = begin()
    way = searched(whole, 14)
    resumed = begin()
    for architecture in way[:12]:
        resumed.register(SPACE.assignment(architecture), architecture)
        resumed.tell(architecture.digest, values(architecture))
    assert searched(resumed, 2) == way[12:]


def test_a_stopped_training_teaches_but_its_loss_is_no_point_of_the_front() -> None:
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=100)
    for architecture in searched(proposer, 10):
        proposer.observe(architecture.digest, 1, 2 * loss(architecture))
    stopped = proposer.propose()
    assert stopped is not None
    proposer.observe(stopped.architecture.digest, 1, 3.0)
    proposer.tell(stopped.architecture.digest, None)
    engine: Any = proposer._engine
    lessons, losses = engine._history.training_data()
    assert len(lessons) == 11
    assert losses[-1] == pytest.approx(1.5)
    assert engine._history.own[-1].loss is None
    assert proposer.propose() is not None


def test_an_earlier_study_replaces_the_first_proposals_and_may_be_proposed_again() -> None:
    rng = np.random.default_rng(0)
    assignments = [SPACE.sample(rng) for _ in range(20)]
    architectures = [SPACE.architecture(assignment) for assignment in assignments]
    earlier = [values(architecture) for architecture in architectures]
    cold = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=200)
    warm = make_proposer(SPACE, "pareto", NAMES, 0, costs, screen=200)
    warm.warm(assignments, architectures, earlier)
    assert warm.seen == 0

    def volume(proposer: Proposer) -> float:
        points = np.array([values(architecture) for architecture in searched(proposer, 6)])
        return float(moocore.hypervolume(np.log(points), ref=np.log([3.0, 10_000.0])))

    assert volume(warm) > volume(cold)
    with pytest.raises(UserError, match="pareto"):
        make_proposer(SPACE, "tpe", NAMES, 0).warm(assignments, architectures, earlier)


def test_known_limits_are_kept_from_the_first_proposal_on() -> None:
    known = KnownLimits(("params",), frozenset(), lambda some: np.log(costs(some) / 1000))
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, known, screen=200)
    assert max(cost(architecture) for architecture in searched(proposer, 16)) <= 1000


@pytest.mark.slow
def test_limits_that_hardly_a_draw_keeps_to_are_reached_by_mutation() -> None:
    space, names = SearchSpace.load("wide"), ("reconstruction_loss", "params", "macs")
    limits = known_limits({"params": 100_000, "macs": 10_000_000})
    proposer = make_proposer(space, "pareto", names, 0, known_costs(names), limits, screen=300)
    for _ in range(3):
        proposal = proposer.propose()
        assert proposal is not None
        assert limits is not None
        assert limits.excess([proposal.architecture]).max() <= 0


@pytest.mark.slow
def test_a_limit_that_is_learned_is_reached_by_mutation_too() -> None:
    space, names = SearchSpace.load("wide"), ("reconstruction_loss", "params")
    known, counted = known_costs(names), known_costs(("reconstruction_loss", "macs"))
    proposer = make_proposer(space, "pareto", names, 0, known, screen=300)
    over = []
    for _ in range(10):
        proposal = proposer.propose()
        assert proposal is not None
        over.append(counted([proposal.architecture])[0, 0] / 50_000_000 - 1)
        proposer.tell(proposal.architecture.digest, None, {"latency_ms": over[-1]})
    assert min(over[:3]) > 5  # nothing is known yet
    assert min(over[5:]) < 0.5


@pytest.mark.slow
def test_a_guess_at_a_limit_that_is_too_low_is_corrected_by_observations() -> None:
    space, names = SearchSpace.load("wide"), ("reconstruction_loss", "macs")
    known = known_costs(names)
    limit, wrong = 10_000_000, 1.3
    guess = known_limits({"macs": limit * wrong})
    assert guess is not None
    guess = replace(guess, predicted=frozenset({"macs"}))
    proposer = make_proposer(space, "pareto", names, 0, known, guess, screen=300)
    over = []
    for _ in range(12):
        proposal = proposer.propose()
        assert proposal is not None
        over.append(known([proposal.architecture])[0, 0] / limit - 1)
        proposer.tell(proposal.architecture.digest, None, {"macs": over[-1]})
    assert over[0] > 0.1
    assert sum(one <= 0.03 for one in over[2:]) >= 8


def test_where_no_candidate_keeps_to_the_limits_one_that_does_not_is_proposed() -> None:
    never = KnownLimits(("params",), frozenset(), lambda some: np.ones((len(some), 1)))
    for start in (5, 0):
        proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, never, screen=50, start=start)
        assert len(set(searched(proposer, 4))) == 4


def test_a_remembered_candidate_is_described_as_it_was() -> None:
    assignments = list(itertools.islice(SPACE.enumerate(), 40))
    digests = {SPACE.architecture(one).digest for one in assignments[:20]}
    catalogue = Catalogue(SPACE, LOGARITHMIC, costs, None, None)
    assert len(catalogue.unseen(assignments[:20], digests, 40)) == 0
    again, anew = (
        catalogue.unseen(assignments, (), 40),
        Catalogue(SPACE, LOGARITHMIC, costs, None, None),
    )
    fresh = anew.unseen(assignments, (), 40)
    assert again.assignments == fresh.assignments
    np.testing.assert_array_equal(again.features, fresh.features)
    np.testing.assert_array_equal(again.costs, fresh.costs)
    np.testing.assert_array_equal(
        again.costs[:, 0], np.log([cost(SPACE.architecture(one)) for one in again.assignments])
    )


def test_the_surrogate_can_be_left_out() -> None:
    proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, surrogate=False)
    assert len(set(searched(proposer, 13))) == 13


@pytest.mark.slow
def test_the_focus_decides_about_low_losses_or_low_costs() -> None:
    spent = {}
    for focus in ("cheap", "balanced", "accurate"):
        proposer = make_proposer(SPACE, "pareto", NAMES, 0, costs, focus=focus)
        late = searched(proposer, 40)[10:]
        spent[focus] = np.median([cost(one) for one in late])
    assert spent["cheap"] < spent["balanced"] < spent["accurate"]


def test_the_reference_losses_are_the_highest_and_the_middle_of_the_front_in_turn() -> None:
    losses, front = np.array([1.0, 2.0, 3.0, 4.0, 9.0]), np.array([4.0, 1.0, 2.0])
    turns = [reference_losses("balanced", losses, front, turn) for turn in (8, 9)]
    assert turns == [[2, 9, 2], [9, 2, 2]]
    few = np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    assert reference_losses("balanced", few, few[2:], 0) == [9, 7, 3]
    assert reference_losses("cheap", losses, front, 1) == [9]
    assert reference_losses("accurate", losses, front, 1) == [2]
    # Nothing is known to be better than the lowest loss: half of all losses count instead.
    for few in (front[1:2], front[:0]):
        assert reference_losses("accurate", losses, few, 1) == [3]


def test_the_front_has_the_losses_of_what_nothing_dominates_within_the_limits() -> None:
    nothing, record = np.zeros(0), History(0, np.array([False, True]))
    assert record.front_losses().tolist() == []
    told = [(1.0, 5.0, 0.0), (2.0, 3.0, 0.0), (3.0, 4.0, 0.0), (0.5, 1.0, 0.1)]
    for number, (found, spent, over) in enumerate(told):
        record.add(str(number), Observation({}, nothing, np.array([spent]), nothing))
        record.tell(str(number), [found, spent], {"params": over})
    record.add("open", Observation({}, nothing, np.array([0.0]), nothing))
    assert record.front_losses().tolist() == [1.0, 2.0]


def test_losses_above_the_reference_keep_their_order_and_count_for_less() -> None:
    losses = np.array([1.0, 2.0, 3.0, 5.0, 3.0 + 2 * math.expm1(1)])
    np.testing.assert_allclose(compressed(losses, 3.0), [1, 2, 3, 3 + 2 * math.log(2), 5])
    np.testing.assert_array_equal(compressed(losses, 9.0), losses)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="scren"):
        make_proposer(SPACE, "pareto", NAMES, 0, costs, scren=5)
    with pytest.raises(TypeError, match="screen"):
        make_proposer(SPACE, "tpe", NAMES, 0, screen=5)


def test_without_a_loss_the_first_objective_is_the_learned_one() -> None:
    space, names = SearchSpace.load("tiny"), ("params", "macs")
    known = known_costs(names)
    proposer = make_proposer(space, "pareto", names, 0, known)
    for _ in range(14):
        proposal = proposer.propose()
        assert proposal is not None
        (macs,) = known([proposal.architecture])[0]
        proposer.tell(proposal.architecture.digest, [macs / 2, macs])
    assert proposer.seen == 14
