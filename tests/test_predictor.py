"""The latency predictor recovers a known law and is better than the baselines."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nas.operation import Operation
from nas.predict import predictor as predictor_module
from nas.predict.accuracy import accuracy, check
from nas.predict.calibration import (
    Calibration,
    Measurement,
    Role,
    Setting,
    _environment,
    drawn,
    extend,
)
from nas.predict.cost_model import OperationTimes
from nas.predict.operations import operations
from nas.predict.predictor import LatencyPredictor, uncontended
from nas.predict.timed import OperationTimer
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL
from search_spaces.space import SearchSpace
from tests.helpers.made_up_machine import ORIGINAL_MS, SIZE, fake, law_ms

SETTING = Setting(image_size=SIZE)
SPACE = SearchSpace.load(f"wide@{SIZE}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> LatencyPredictor:
    path = tmp_path_factory.mktemp("predictor") / "x.jsonl"
    calibration = Calibration(SETTING, _environment(SETTING), path)
    extend(calibration, SPACE, 40, 30, measure=fake)
    return LatencyPredictor(calibration)


@pytest.mark.slow
def test_a_known_law_is_recovered_and_beats_both_baselines(fitted: LatencyPredictor) -> None:
    ours, macs, launches = check(fitted)
    assert [row.name for row in (ours, macs, launches)] == [
        "predictor",
        "MACs only",
        "launches only",
    ]
    assert ours.count == 30
    assert ours.within_10 >= 0.95
    assert ours.spearman > 0.99
    for baseline in (macs, launches):
        assert baseline.within_10 < ours.within_10 - 0.3
        assert baseline.median_error > 3 * ours.median_error


def test_original_is_the_unit(fitted: LatencyPredictor) -> None:
    [ratio] = fitted.predict_ratio([ORIGINAL.resized(SIZE)])
    assert ratio == pytest.approx(1, rel=0.1)
    assert fitted.original_ms == ORIGINAL_MS
    assert fitted.predict_ms([ORIGINAL.resized(SIZE)])[0] == pytest.approx(ratio * ORIGINAL_MS)
    assert fitted.predict_ms([ORIGINAL.resized(SIZE)], 20)[0] == pytest.approx(ratio * 20)


def test_together_and_alone_predict_the_same(fitted: LatencyPredictor) -> None:
    some = list(itertools.islice(drawn(SPACE, seed=7), 12))
    together = fitted.predict_ratio(fitted.vectorise(some))
    alone = [fitted.predict_ratio([architecture])[0] for architecture in some]
    assert together == pytest.approx(alone)
    assert fitted.predict_ratio([]).shape == (0,)


def test_contributions_add_up_and_name_what_is_dear(fitted: LatencyPredictor) -> None:
    shares = fitted.contributions(ORIGINAL.resized(SIZE))
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert "depthwise" not in shares


def test_another_image_size_is_refused_with_the_remedy(fitted: LatencyPredictor) -> None:
    with pytest.raises(UserError, match=r"144 pixels.*nas profile calibrate --space wide@144"):
        fitted.predict_ratio([ORIGINAL])


def test_the_margin_is_the_rare_overestimate_and_the_interval_holds_the_rest(
    fitted: LatencyPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Predicted over measured from 0.9 to 1.1 in 201 equal steps: quantile q is 0.9 + 0.2 q.
    monkeypatch.setitem(fitted.__dict__, "errors", np.linspace(0.9, 1.1, 201))
    assert fitted.margin == pytest.approx(1.098)
    assert fitted.interval(10.0) == pytest.approx((10 / 1.095, 10 / 0.905))
    monkeypatch.setitem(fitted.__dict__, "errors", np.linspace(0.8, 0.9, 201))
    assert fitted.margin == 1


def test_accuracy_by_hand() -> None:
    predicted, measured = np.array([1.0, 2.1, 3.9, 6.0]), np.array([1.0, 2.0, 3.0, 4.0])
    found = accuracy("x", predicted, measured)  # errors 0, 5, 30 and 50 %
    assert (found.count, found.within_10) == (4, 0.5)
    assert found.median_error == pytest.approx(0.175)
    assert found.p90_error == pytest.approx(0.44)
    assert (found.spearman, found.kendall) == pytest.approx((1, 1))


def test_unseen_kinds_follow_the_common_law() -> None:
    seen = [Operation("pointwise", c, c, s, s) for c in range(1, 40) for s in (4, 8, 16)]
    times = np.array([law_ms(operation) for operation in seen])
    model = OperationTimes.fit(seen, times, batch=1)
    other = Operation("upsample", 16, 16, 8, 16, 2, 2)
    assert 0.3 < model([other])[0] / law_ms(other) < 3
    assert model([]).shape == (0,)


def test_waiting_for_a_busy_core_is_left_out_where_it_is_known() -> None:
    waited = ((4.0, 2.0), (9.0, 2.0), (9.0, 2.0))
    worked = ((4.0, 2.0), (4.1, 2.0), (3.9, 2.0))
    known = Measurement(ORIGINAL, "fitted", waited, worked)
    assert (known.ratio, known.undisturbed_ratio, known.original_ms) == (4.5, 2.0, 2.0)
    unknown = Measurement(ORIGINAL, "fitted", waited)
    assert unknown.undisturbed_ratio == 4.5


def test_disturbed_measurements_are_left_out_while_most_are_quiet() -> None:
    def made(contended: bool) -> Measurement:
        return Measurement(ORIGINAL, "fitted", ((1.0, 1.0),), (), contended)

    mixed = [made(False), made(False), made(True)]
    assert list(uncontended(mixed)) == mixed[:2]
    assert len(uncontended([made(True), made(True), made(False)])) == 3


def test_draws_are_distinct_repeatable_and_end() -> None:
    tiny = SearchSpace.load("tiny")
    found = list(drawn(tiny))
    digests = [architecture.digest for architecture in found]
    assert len(set(digests)) == len(digests) == tiny.distinct()
    depths = [len(a.encoder.stages) for a in itertools.islice(drawn(SPACE), 60)]
    assert {depths.count(depth) > 5 for depth in (3, 4, 5, 6)} == {True}


class InterruptionError(Exception):
    pass


def test_an_interrupted_calibration_goes_on_and_loses_nothing() -> None:
    asked: list[Architecture] = []

    def flaky(architecture: Architecture, role: Role) -> Measurement:
        asked.append(architecture)
        if len(asked) == 5:
            raise InterruptionError
        return fake(architecture, role)

    with pytest.raises(InterruptionError):
        extend(Calibration.here(SETTING), SPACE, 6, 3, measure=flaky)
    kept = Calibration.here(SETTING)
    assert [m.architecture for m in kept.measurements] == asked[:4]
    with kept.path.open("a") as file:
        file.write('{"architecture": {"ima')  # killed while it wrote
    calls: list[tuple[int, int]] = []
    again = Calibration.here(SETTING)
    extend(again, SPACE, 6, 3, progress=lambda *call: calls.append(call), measure=fake)
    assert calls == [(done, 9) for done in range(5, 10)]
    found = Calibration.here(SETTING)
    assert len({m.architecture.digest for m in found.measurements}) == 9
    assert (len(found.of("fitted")), len(found.of("held_out"))) == (6, 3)
    straight = list(itertools.islice(drawn(SPACE), 9))
    assert [m.architecture for m in found.measurements] == straight
    assert found.measurements[0].ratio == pytest.approx(fake(straight[0], "fitted").ratio, 1e-4)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (0, "{no JSON"),
        (0, '{"format": 1}'),
        (1, "null"),
        (1, "[" * 100_000),
        (1, "\udcff"),
        (1, {"samples_ms": [[1.0, 0.0]]}),
        (1, {"samples_ms": []}),
        (1, {"samples_ms": [[1.0]]}),
        (1, {"operations": [None]}),
        (1, {"role": "x"}),
        (1, {"architecture": {}}),
    ],
)
def test_a_damaged_calibration_is_refused_in_one_line_and_left_as_it_is(
    line: int, value: str | dict[str, object]
) -> None:
    calibration = Calibration.here(Setting(image_size=SIZE))
    extend(calibration, SPACE, 2, 1, measure=fake)
    lines = calibration.path.read_text().splitlines()
    lines[line] = value if isinstance(value, str) else json.dumps(json.loads(lines[line]) | value)
    content = ("\n".join(lines) + "\nunfinished").encode(errors="surrogateescape")
    calibration.path.write_bytes(content)
    with pytest.raises(UserError, match=r"jsonl: not a calibration of this version") as refused:
        Calibration.here(Setting(image_size=SIZE))
    assert "\n" not in str(refused.value)
    assert calibration.path.read_bytes() == content


def test_time_that_runs_out_leaves_a_share_of_each() -> None:
    calibration = Calibration.here(SETTING)
    extend(calibration, SPACE, 60, 30, seconds=0.0, measure=fake)
    assert len(calibration.measurements) <= 1
    refused = "at least 30 are needed; continue with: nas profile calibrate"
    with pytest.raises(UserError, match=refused):
        LatencyPredictor(calibration)


@pytest.mark.slow
def test_load_finds_this_environment_and_refuses_another() -> None:
    assert LatencyPredictor.load(SETTING) is None
    calibration = Calibration.here(SETTING)
    extend(calibration, SPACE, 30, 20, measure=fake)
    loaded = LatencyPredictor.load(SETTING)
    assert loaded is not None
    assert check(loaded)[0].name == "predictor"
    assert LatencyPredictor.load(replace(SETTING, batch=2)) is None
    header, *lines = calibration.path.read_text().splitlines(keepends=True)
    changed = json.loads(header)
    changed["environment"]["cpu_model"] = "Another 9000"
    other = calibration.path.with_name(calibration.path.name.replace(".jsonl", "0.jsonl"))
    other.write_text(json.dumps(changed) + "\n" + "".join(lines))
    calibration.path.unlink()
    with pytest.raises(UserError, match=r"cpu_model: 'Another 9000' against .*calibrate here with"):
        LatencyPredictor.load(SETTING)


def test_a_folder_that_cannot_be_written_is_refused(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "predictors").write_text("a file")
    with pytest.raises(UserError, match="NAS_CACHE_DIR"):
        extend(Calibration.here(SETTING), SPACE, 1, 1, measure=fake)


@pytest.mark.slow
def test_a_tiny_calibration_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "ENOUGH", {"fitted": 3, "held_out": 2})
    space = SearchSpace.load("tiny")
    setting = Setting(image_size=32)
    done: list[int] = []
    found = LatencyPredictor.calibrate(
        setting, space, 3, 2, progress=lambda count, total: done.append(count)
    )
    assert done == [1, 2, 3, 4, 5]
    for measurement in found.calibration.of("fitted"):
        assert len(measurement.operations) == len(operations(measurement.architecture))
        assert 0.3 < sum(measurement.operations) / measurement.undisturbed_ratio < 3
        assert len(measurement.cpu_ms) == len(measurement.samples_ms)
    assert all(m.operations == () for m in found.calibration.of("held_out"))
    assert (found.predict_ratio(drawn_some(space)) > 0).all()
    assert OperationTimer(setting)  # the allocator is tuned: the environment is the one calibrated
    assert LatencyPredictor.load(setting) is not None


def drawn_some(space: SearchSpace) -> list[Architecture]:
    return list(itertools.islice(drawn(space, seed=3), 4))
