"""Early stopping: candidates that may reach the front continue, others are stopped."""

import numpy as np
import pytest

from nas.search.early_stopping import EarlyStopping, _larger_contributions


def reported(stopping: EarlyStopping, digest: str, cost: float, *losses: float) -> bool:
    """Report epoch by epoch until stopped, with one exact cost."""
    return all(
        stopping.report(digest, epoch, [cost], losses[:epoch])
        for epoch in range(1, len(losses) + 1)
    )


def crowded(**options: object) -> EarlyStopping:
    """Nine candidates of about the same cost, the cheaper the worse, and one rung."""
    stopping = EarlyStopping(9, rungs=[1], **options)  # type: ignore[arg-type]
    for number in range(9):
        reported(stopping, f"old{number}", 100 + number, 0.9 - 0.01 * number)
    return stopping


def test_rungs_are_powers_of_eta_below_the_last_epoch() -> None:
    assert EarlyStopping(9).rungs == (3,)
    assert EarlyStopping(10).rungs == (3, 9)
    assert EarlyStopping(2).rungs == (1,)
    assert EarlyStopping(10, grace=1).rungs == (1, 3, 9)
    assert EarlyStopping(20, eta=2, grace=3).rungs == (3, 6, 12)
    assert EarlyStopping(1).rungs == ()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 9, "eta": 1}, "eta"),
        ({"epochs": 9, "rungs": [9]}, "rungs"),
        ({"epochs": 9, "region": 0.5}, "region"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        EarlyStopping(**arguments)  # type: ignore[arg-type]


def test_a_training_of_one_epoch_has_no_rungs() -> None:
    with pytest.raises(ValueError, match=r"rungs \[1\]: a training of one epoch can have none"):
        EarlyStopping(1, rungs=[1])


def test_the_lowest_loss_up_to_a_rung_counts_not_the_last() -> None:
    stopping = EarlyStopping(9, rungs=[2])
    for number in range(9):
        reported(stopping, f"old{number}", 100, 0.9, 0.8 - 0.01 * number)
    assert reported(stopping, "rose", 100, 0.5, 0.95)


def test_candidates_cost_about_as_much_only_if_every_cost_does() -> None:
    def goes_on(second: float) -> bool:
        stopping = EarlyStopping(9, rungs=[1])
        for number, (first, loss) in enumerate([(100, 0.9), (107, 0.7), (113, 0.5)]):
            stopping.report(f"old{number}", 1, [first, 100], [loss])
        return stopping.report("new", 1, [120, second], [0.91])

    assert not goes_on(99)  # two of four on the front contribute more
    assert goes_on(10)  # the only one at its second cost, and not dominated


def test_the_first_candidates_go_on_because_there_is_nothing_to_compare_them_with() -> None:
    stopping = EarlyStopping(9)
    assert reported(stopping, "a", 100, 0.5)
    assert reported(stopping, "b", 101, 0.9)


def test_a_dominated_candidate_is_stopped_and_only_at_a_rung() -> None:
    stopping = crowded()
    assert not reported(stopping, "worse", 109, 0.95)
    assert stopping.report("late", 2, [109], [0.95, 0.95])


def test_the_best_of_a_crowded_region_goes_on() -> None:
    assert reported(crowded(), "better", 109, 0.5)


def test_of_a_crowded_front_one_in_eta_goes_on() -> None:
    rng = np.random.default_rng(0)
    stopping = EarlyStopping(9, rungs=[1])
    costs = rng.uniform(100, 150, 300)
    kept = [reported(stopping, str(n), cost, 200 / cost) for n, cost in enumerate(costs)]
    assert 0.2 < np.mean(kept[30:]) < 0.45


def test_alone_in_its_cost_region_a_candidate_survives_with_a_high_loss() -> None:
    assert reported(crowded(), "cheap", 10, 5.0)


@pytest.mark.parametrize("others", [0, 10, 1000])
@pytest.mark.slow
def test_bad_candidates_at_distant_costs_change_nothing(others: int) -> None:
    verdicts = []
    for loss in (0.5, 0.815, 0.95):
        stopping = crowded()
        for number in range(others):
            stopping.report(f"far{number}", 1, [10_000 + number], [3.0 + number])
        verdicts.append(reported(stopping, "new", 109, loss))
    assert verdicts == [True, False, False]


def test_references_are_never_stopped() -> None:
    stopping = crowded(extrapolate=True)
    stopping.protect("reference")
    assert reported(stopping, "reference", 200, *[2.0] * 9)


def test_a_stopped_candidate_may_be_resumed_when_those_ahead_of_it_did_not_matter() -> None:
    stopping = EarlyStopping(9, rungs=[1])
    for digest, loss in (("a", 0.5), ("b", 0.6)):
        assert reported(stopping, digest, 100, loss)
    assert not reported(stopping, "c", 100, 0.7)
    assert stopping.resumable() == []
    stopping.finished("a", None)
    stopping.finished("b", None)
    assert stopping.resumable() == ["c"]
    assert stopping.report("c", 2, [100], [0.7, 0.6])
    assert stopping.resumable() == []


def test_a_finished_candidate_that_is_dominated_stands_in_nobody_s_way() -> None:
    stopping = EarlyStopping(9, rungs=[1])
    for number in range(3):
        reported(stopping, f"rival{number}", 100 - number, 0.5)
    assert not reported(stopping, "stopped", 101, 0.6)
    for number in range(3):
        stopping.finished(f"rival{number}", [100 - number, 0.5])
    assert stopping.resumable() == []
    reported(stopping, "cheap", 1, 0.9)
    stopping.finished("cheap", [1, 0.1])
    assert stopping.resumable() == ["stopped"]


def test_extrapolation_spares_what_may_still_reach_the_front() -> None:
    def stopping() -> EarlyStopping:
        made = EarlyStopping(9, rungs=[], extrapolate=True)
        assert reported(made, "leader", 10, 1.0, 0.6, 0.5, 0.45)
        return made

    assert not reported(stopping(), "flat", 10, 1.0, 0.99, 0.985)
    # Falling by 0.21 from epoch 2 to 3, at most 0.57 more are to come: 0.72 - 0.57 < 0.45.
    assert reported(stopping(), "steep", 10, 1.2, 0.93, 0.72)
    # Of its last two steps the first was steep, so it may fall as steeply again.
    assert reported(stopping(), "uneven", 10, 1.2, 0.7, 0.69)
    assert reported(stopping(), "cheaper", 9, 1.0, 0.99, 0.985)
    assert reported(stopping(), "young", 10, 1.0, 0.99)


def test_extrapolation_starts_from_the_steeper_of_the_last_two_steps() -> None:
    def goes_on(*losses: float) -> bool:
        stopping = EarlyStopping(9, rungs=[], extrapolate=True)
        assert reported(stopping, "leader", 10, 1.0, 0.6, 0.5, 0.45)
        return reported(stopping, "other", 10, *losses)

    # Falls per doubling of epochs, times log2(9 / 3) to come: 0.57 after the steeper step.
    assert goes_on(1.2, 1.15, 0.94)  # 0.94 - 0.57 < 0.45; the step before fell by 0.05
    assert goes_on(1.36, 1.0, 0.99)  # 0.99 - 0.57 < 0.45; the last step fell by 0.01
    assert not goes_on(1.36, 1.31, 1.30)


def test_a_training_is_judged_by_its_best_loss_so_far() -> None:
    stopping = EarlyStopping(9, rungs=[3])
    assert reported(stopping, "a", 100, 0.9, 0.8, 0.6)
    assert reported(stopping, "b", 100, 0.9, 0.8, 0.7)
    assert reported(stopping, "best", 100, 0.5, 0.8, 0.95)
    assert not reported(stopping, "worst", 100, 0.9, 0.8, 0.65)


def test_extrapolation_takes_the_best_loss_so_far_of_both_trainings() -> None:
    stopping = EarlyStopping(9, rungs=[], extrapolate=True)
    assert reported(stopping, "leader", 10, 1.0, 0.5, 1.2)
    assert not reported(stopping, "worse", 10, 1.0, 0.99, 0.985)  # 0.969 to come, above 0.5
    assert reported(stopping, "better", 10, 0.4, 0.9, 0.95)


def test_rivals_are_those_of_about_the_same_costs_all_of_them() -> None:
    stopping = EarlyStopping(9, rungs=[1])
    for number in range(3):
        stopping.report(f"rival{number}", 1, [100, 100], [0.5])
    for number in range(30):
        stopping.report(f"far{number}", 1, [100, 10_000], [3.0])
    assert not stopping.report("new", 1, [100, 100], [0.9])


def test_decisions_are_the_same_for_the_same_reports_and_after_a_restart() -> None:
    rng = np.random.default_rng(1)
    table = [(str(n), rng.uniform(1, 100, 3), rng.uniform(0.1, 1, 9)) for n in range(60)]

    def decided(interrupted_after: int | None) -> list[int]:
        stopping = EarlyStopping(9, grace=1, extrapolate=True)
        ends: list[int] = []
        for number, (digest, costs, losses) in enumerate(table):
            if number == interrupted_after:
                restored = EarlyStopping(9, grace=1, extrapolate=True)
                for (name, cost, loss), end in zip(table, ends, strict=False):
                    restored.restore(name, cost.tolist(), loss[:end].tolist(), stopped=end < 9)
                stopping = restored
            epoch = 1
            while (
                stopping.report(digest, epoch, costs.tolist(), losses[:epoch].tolist())
                and epoch < 9
            ):
                epoch += 1
            ends.append(epoch)
        return ends

    assert decided(None) == decided(None) == decided(31)
    assert 1 in decided(None)
    assert 9 in decided(None)


def test_the_smallest_arguments_are_accepted_and_what_is_below_is_named() -> None:
    assert EarlyStopping(1, eta=2, grace=1, region=1.0).rungs == ()
    assert EarlyStopping(9, rungs=[8, 1, 8]).rungs == (1, 8)
    with pytest.raises(ValueError, match="grace 0 must be at least 1"):
        EarlyStopping(9, grace=0)
    with pytest.raises(ValueError, match=r"rungs \[0\] must lie between 1 and 8"):
        EarlyStopping(9, rungs=[0])


@pytest.mark.parametrize(
    ("others", "loss", "goes_on"),
    [
        ((0.1,), 0.9, True),  # fewer than eta in all
        ((0.1, 0.3), 0.2, False),  # the best one of three
        ((0.1, 0.3), 0.05, True),
        ((0.1, 0.3, 0.4), 0.2, True),  # the best two of four: rounded up
        ((0.1, 0.3, 0.4), 0.35, False),
    ],
)
def test_one_in_eta_of_equal_costs_goes_on_rounded_up(
    others: tuple[float, ...], loss: float, goes_on: bool
) -> None:
    stopping = EarlyStopping(9, rungs=[1])
    for number, other in enumerate(others):
        stopping.report(str(number), 1, [100], [other])
    assert stopping.report("new", 1, [100], [loss]) is goes_on


@pytest.mark.parametrize(
    ("region", "cost", "goes_on"),
    [(2.0, 100 / 1.99, False), (2.0, 100 / 2.01, True), (3.0, 100 / 2.01, False)],
)
def test_candidates_compete_up_to_a_factor_of_region_between_costs(
    region: float, cost: float, goes_on: bool
) -> None:
    # All three are on the front. The new one adds little to it, but is alone with one rival where
    # the costly one is too far away.
    stopping = EarlyStopping(9, rungs=[1], region=region)
    stopping.report("costly", 1, [100], [0.1])
    stopping.report("middle", 1, [60], [0.2])
    assert stopping.report("new", 1, [cost], [0.9]) is goes_on


def test_a_rung_compares_the_best_losses_up_to_it_and_no_later_ones() -> None:
    stopping = EarlyStopping(9, rungs=[2])
    stopping.report("a", 2, [100], [0.3, 0.9])
    stopping.report("b", 3, [100], [0.9, 0.8, 0.01])
    assert stopping.report("best before", 2, [100], [0.2, 0.95])
    assert stopping.report("second", 2, [100], [0.95, 0.25])
    assert not stopping.report("fourth", 2, [100], [0.95, 0.35])


def test_a_restored_training_is_resumable_only_if_it_was_stopped() -> None:
    for stopped in (True, False):
        stopping = EarlyStopping(9, rungs=[1])
        stopping.restore("a", [100], [0.5], stopped=False)
        stopping.restore("b", [100], [0.6], stopped=False)
        stopping.restore("c", [100], [0.4], stopped=stopped)
        assert stopping.resumable() == (["c"] if stopped else [])


def extrapolated(losses: list[float], **others: tuple[float, float]) -> bool:
    """Whether a training of cost 10 goes on beside others, given as (cost, loss) of four epochs."""
    stopping = EarlyStopping(9, rungs=[], extrapolate=True)
    for name, (cost, loss) in others.items():
        stopping.report(name, 4, [cost], [loss + 0.5, loss, loss + 0.1, loss + 0.2])
    return stopping.report("new", len(losses), [10], losses)


def test_extrapolation_ends_what_one_candidate_that_costs_no_more_stays_ahead_of() -> None:
    flat = [1.0, 0.9, 0.9]
    assert not extrapolated(flat, same=(10, 0.1))
    assert not extrapolated(flat, same=(10, 0.1), worse=(10, 2.0), costly=(20, 0.1))
    assert extrapolated(flat, worse=(10, 2.0), costly=(10.1, 0.1))
    assert extrapolated(flat)


@pytest.mark.parametrize(
    ("losses", "least"),
    [
        # 0.21 from epoch 2 to 3 is 0.5179 per unit of the logarithm; log(9 / 3) = 1.0986 are left.
        ([1.2, 0.93, 0.72], 0.72 - 0.5179 * 1.0986),
        # The first of the two steps is steeper: 0.5 / log(2) = 0.7213.
        ([1.3, 0.8, 0.79], 0.79 - 0.7213 * 1.0986),
        ([0.5, 0.6, 0.7], 0.5),  # one that rises is taken at its best so far
        ([0.9, 0.9, 0.9], 0.9),
        # Only the last two steps of a longer training count: 0.01 / log(4 / 3).
        ([3.0, 0.92, 0.91, 0.90], 0.90 - 0.03476 * 0.81093),
    ],
)
def test_what_a_training_may_still_reach(losses: list[float], least: float) -> None:
    assert extrapolated(losses, other=(10, least + 0.001))
    assert not extrapolated(losses, other=(10, least - 0.001))


def test_an_equal_loss_is_not_ahead() -> None:
    assert extrapolated([0.5, 0.5, 0.5], other=(10, 0.5))


def test_contributions_are_counted_in_the_box_of_the_region() -> None:
    # In the unit square with its corner at 1.1 they are 0.5 x 0.1, 0.5 x 0.8 and 0.1 x 0.2.
    unit = np.array([[0.0, 1.0], [0.5, 0.2], [1.0, 0.0]])
    rows = np.arange(3)
    for points in (unit, unit * [10, 1000] + [5, 7]):
        larger = [_larger_contributions(points, rows, rows, place) for place in range(3)]
        assert larger == [1, 0, 2]
