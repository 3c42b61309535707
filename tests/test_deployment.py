"""The benchmark of docs/deployment.md: rows that survive a kill, and figures computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.deployment import alarms, loopback, modified, orders, searching
from benchmarks.deployment.__main__ import main
from benchmarks.deployment.rows import MEASURED, Rows, fill, require_same_environment
from benchmarks.deployment.summary import against, matrix, summary, sweeps, tau_interval
from nas.setups import EngineRefused, SetUp
from profiling.environment import fingerprint
from search_spaces.errors import UserError
from search_spaces.references import ORIGINAL


def measured(ratio: float, **more: Any) -> dict[str, Any]:
    around = {"low": ratio - 0.01, "high": ratio + 0.01, "candidate_ms": 10 * ratio}
    return {"ratio": ratio, **around, **more}


def test_rows_survive_a_kill_within_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = Rows(path, ("name",), ("ratio", "note"))
    rows.append({"name": 1, "ratio": 1 / 3, "note": "two\nlines, one"})
    rows.append({"name": 2, "ratio": 2.0})
    whole = path.read_bytes()
    assert whole == b'name,ratio,note\n1,0.333333,"two lines, one"\n2,2.0,\n'
    path.write_bytes(whole[:-3])
    again = Rows(path, ("name",), ("ratio", "note"))
    assert again.all == [{"name": "1", "ratio": "0.333333", "note": "two lines, one"}]
    again.append({"name": 2, "ratio": 2.0})
    assert path.read_bytes() == whole
    path.write_bytes(whole[:5])  # killed in the header
    assert Rows(path, ("name",), ("ratio", "note")).all == []
    with pytest.raises(UserError, match="has other columns"):
        Rows(path, ("name",), ("ratio",))


def test_the_last_of_equal_rows_counts(tmp_path: Path) -> None:
    for ratio in (1, 2):
        Rows(tmp_path / "rows.csv", ("name",), ("ratio",)).append({"name": "a", "ratio": ratio})
    rows = Rows(tmp_path / "rows.csv", ("name",), ("ratio",))
    assert rows.get("a") == {"name": "a", "ratio": "2"}
    assert rows.get("b") is None


def test_only_what_is_missing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    jobs = [(("x", name), name) for name in "abc"]

    def measure(name: str) -> dict[str, Any]:
        asked.append(name)
        return {"contention": "busy" if name == "b" else "", "failure": "no" * (name == "c")}

    def run(jobs: list[Any], again: bool = False) -> str:
        asked.clear()
        rows = Rows(tmp_path / "rows.csv", ("setup", "name"), ("contention", "failure"))
        fill(rows, jobs, measure, "measured", again=again)
        return "".join(asked)

    assert run(jobs[:2]) == "ab"
    assert run(jobs) == "c"
    assert capsys.readouterr().out.splitlines()[-1] == "measured 3/3, 0 min left"
    assert run(jobs) == ""
    assert run(jobs, again=True) == "bc"


def test_rows_of_another_machine_are_not_continued(tmp_path: Path) -> None:
    require_same_environment(tmp_path)
    require_same_environment(tmp_path)
    other = fingerprint().model_copy(update={"cpu_model": "Z80"})
    (tmp_path / "environment.json").write_text(other.model_dump_json())
    with pytest.raises(UserError, match=r"cpu_model: 'Z80' against .*choose another --out"):
        require_same_environment(tmp_path)


def test_every_other_model_is_measured_twice_after_all_set_ups() -> None:
    models = orders.members(3)
    assert list(models)[:2] == ["original", "modified"]
    digests = [one.digest for one in models.values()]
    keys = [key for key, _ in orders.plan(models, {"eager": SetUp(), "b": SetUp()})]
    first = [(1, name, digest) for name in ("eager", "b") for digest in digests]
    twice = [digests[0], digests[1], digests[2], digests[4]]
    assert keys == first + [(2, name, digest) for name in ("eager", "b") for digest in twice]


def test_an_engine_that_refuses_a_model_costs_one_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing:
        def __init__(self, *_: object) -> None: ...

        def measure(self, _: object) -> None:
            raise EngineRefused("openvino: cannot run this model")

    monkeypatch.setattr(orders, "Meter", Refusing)
    meters = orders.Meters({"openvino": SetUp(backend="openvino")})
    found = meters.measure(orders.Job("openvino", ORIGINAL))
    assert found == {"failure": "openvino: cannot run this model"}


def test_a_set_up_that_does_not_run_here_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("profiling.backends.missing", lambda *names: "needs it: pip install it")
    found = orders.usable({"eager": {}, "ort": {"backend": "onnxruntime"}})
    assert list(found) == ["eager"]
    assert capsys.readouterr().out.startswith("ort: left out (latency.backend: onnxruntime needs")


@pytest.fixture
def ordered(tmp_path: Path) -> Path:
    """Four models in two set-ups: one pair of six changes places, and one when repeated."""
    rows = orders.rows_of(tmp_path)
    ratios = {"eager": (0.5, 0.9, 1.5, 2.0), "ort": (0.4, 1.0, 0.6, 2.0)}
    for setup, values in ratios.items():
        for digest, ratio in zip("abcd", values, strict=True):
            rows.append({"sweep": 1, "setup": setup, "digest": digest, **measured(ratio)})
    for digest, ratio in zip("acd", (0.5, 2.1, 2.0), strict=True):
        row = measured(ratio, contention="busy")
        rows.append({"sweep": 2, "setup": "eager", "digest": digest, **row})
    rows.append({"sweep": 2, "setup": "ort", "digest": "a", "failure": "no such operator"})
    return tmp_path


def test_tau_and_repeatability_are_those_computed_by_hand(ordered: Path) -> None:
    found = sweeps(orders.rows_of(ordered).all)
    assert list(matrix(found)) == [
        "| | eager | ort |",
        "|---|---|---|",
        "| eager | 0.33 | 0.67 |",  # of 3 pairs one is reversed, of 6 pairs one
        "| ort | 0.67 | - |",
    ]
    low, high = tau_interval(found["ort"][0], found["eager"][0])
    assert -1 <= low < 0.67 < high <= 1


def test_every_set_up_is_compared_with_eager(ordered: Path) -> None:
    lines = list(against(orders.rows_of(ordered).all))
    assert lines[2] == "| eager | 1.00 | 1.00 to 1.00 | 2 of 4 | 1.0 to 1.0 |"
    _, name, tau, _, faster, gains, _ = lines[3].split("|")
    assert (name.strip(), tau.strip(), faster.strip()) == ("ort", "0.67", "2 of 4")
    assert gains.strip() == "0.9 to 2.5"
    assert summary(ordered)[-1] == "12 measurements, 3 on a busy machine, 1 failed"


def test_the_summary_of_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", "--out", str(tmp_path)]) == 2
    assert "nothing is measured there; run orders first" in capsys.readouterr().err


def test_the_best_exact_engine_is_held_against_the_goal(tmp_path: Path) -> None:
    rows = modified.rows_of(tmp_path)
    for batch, backend, ratio in ((1, "openvino", 1.2), (1, "rewritten", 1.05), (8, "eager", 4.0)):
        rows.append({"batch": batch, "backend": backend, "error": 1e-6, **measured(ratio)})
    rows.append({"batch": 8, "backend": "openvino", "failure": "it ended"})
    lines = modified.verdicts(tmp_path)
    assert lines[2] == "| 1 | rewritten | 1.05 (1.04 to 1.06) | 1e-06 |  |"
    assert lines[-2:] == [
        "batch 1: 1.05 in rewritten, goal 1.1: reached",
        "batch 8: 4.00 in eager, goal 1.6: not reached",
    ]


def with_latencies(folder: Path, eager: list[float], ort: list[float]) -> None:
    rows = searching.rows_of(folder)
    digests = sorted(searching.part_of_table().records)
    for setup, sweep in searching.SWEEPS:
        for digest, ratio in zip(digests, eager if setup == "eager" else ort, strict=True):
            rows.append({"setup": setup, "sweep": sweep, "digest": digest, **measured(ratio)})


def test_a_search_on_an_equal_clock_delivers_the_same(tmp_path: Path) -> None:
    ratios = [1 + number / 100 for number in range(144)]
    with_latencies(tmp_path, ratios, ratios)
    found = searching.outcomes(tmp_path, seeds=1, trials=6)
    assert found["eager"] == found["onnxruntime"]
    assert 0 < found["eager"][0].regret < 1
    assert searching._over(found["onnxruntime"], found["eager"]) == [1.0, 1.0, 1.0]


def test_members_that_a_set_up_cannot_run_are_no_part_of_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, digests = searching.rows_of(tmp_path), sorted(searching.part_of_table().records)
    for setup, sweep in searching.SWEEPS:
        for number, digest in enumerate(digests[1:]):
            found = {"failure": "no"} if number % 2 else measured(1.0 + number)
            rows.append({"setup": setup, "sweep": sweep, "digest": digest, **found})
    assert main(["summary", "--out", str(tmp_path)]) == 0
    assert "143 of 144 members are measured in every sweep" in capsys.readouterr().out
    for setup, sweep in searching.SWEEPS:
        rows.append({"setup": setup, "sweep": sweep, "digest": digests[0], "failure": "no"})
    tables = searching.tables(tmp_path)
    assert {len(one.entries) for one in tables.values()} == {72}
    delivered = searching.search(tables["eager", 1], seed=0, trials=8)
    assert set(delivered) <= set(digests[1::2])
    assert delivered


def test_a_search_on_the_wrong_clock_is_found_out(tmp_path: Path) -> None:
    ratios = [1 + number / 100 for number in range(144)]
    with_latencies(tmp_path, ratios[::-1], ratios)
    known = searching.tables(tmp_path)
    judge = known[searching.JUDGE]
    regrets = {
        clock: searching.judged(
            searching.front({key: one.values for key, one in known[clock, 1].entries.items()}),
            judge,
        ).regret
        for clock in searching.CLOCKS
    }
    assert regrets["onnxruntime"] == pytest.approx(0)
    assert regrets["eager"] > 0.1


def test_models_are_judged_by_loss_and_latency() -> None:
    whole = searching.part_of_table().table()
    entries = dict(list(whole.entries.items())[:3])
    values = {"a": (0.3, 4.0), "b": (0.4, 2.0), "c": (0.5, 1.0)}
    made = {
        name: replace(one, digest=name, losses=(loss,), costs=(latency,))
        for one, (name, (loss, latency)) in zip(entries.values(), values.items(), strict=True)
    }
    table = replace(whole, objectives=("reconstruction_loss", "latency_ms"), entries=made)
    # Losses of the front at its quartiles: 0.35, 0.4, 0.45.
    assert searching.judged(["a", "b", "c"], table) == searching.Outcome(0.0, (4.0, 2.0, 2.0))
    only = searching.judged(["b"], table)
    assert only.latencies == (math.inf, 2.0, 2.0)
    assert only.regret == pytest.approx(0.0)  # a and c are worst on an axis and add no volume
    assert searching.front({"a": (1, 2), "b": (2, 1), "c": (2, 2)}) == ["a", "b"]


def test_figures_of_further_set_ups_are_those_of_the_page_on_latency(tmp_path: Path) -> None:
    rows = alarms.rows_of(tmp_path)
    for number, ratio in enumerate((1.0, 1.005, 1.2, 1.0)):
        flag = "wall time is 2" if number == 3 else ""
        row = measured(ratio, contention=flag)
        rows.append({"setup": "ort", "kind": "nothing", "item": number, **row})
    for kind, ratios in {"quiet 1": (1.0, 2.0), "quiet 2": (1.1, 2.0), "lane": (1.0, 1.8)}.items():
        for digest, ratio in zip("ab", ratios, strict=True):
            row = measured(ratio, waiting_s=1, training_s=3)
            rows.append({"setup": "ort", "kind": kind, "item": digest, **row})
    found = {what: text for what, text, _ in alarms.lines(tmp_path)}
    assert found["ort: a model against itself, 4 times"] == (
        "66.7% of the 3 passed as quiet cover 1; 75.0% of all"
    )
    assert found["ort: flagged with nothing beside"].endswith("25.0% for another sign")
    again = found["ort: quiet, measured again"]
    assert again.startswith("median error 5.0%, 95th percentile 9.5%, Kendall tau 1.000")
    assert found["ort: two workers, lane"].startswith("median error 5.0%")
    assert found["ort: cost of the lane"] == "25.0% of the workers' time waiting"
    assert set(MEASURED) <= set(rows.all[0])


def test_both_places_are_measured_in_turns_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Made:
        def __init__(self, setup: SetUp, where: object) -> None:
            self.place = "target" if setup.target else "here"
            assert (where == "reached") == (setup.target == "pi")

        def measure(self, _: object) -> tuple[str, float]:
            asked.append(self.place)
            return self.place, 0.0

    def rowed(place: str) -> dict[str, Any]:
        # Over ssh all takes 2 % longer; of two measurements here the second takes 1 % longer.
        later = asked.count(place) % 2 == 0
        return measured(1.02 if place == "target" else 1.01 if later else 1.0)

    monkeypatch.setattr(loopback, "Meter", Made)
    monkeypatch.setattr(loopback, "row", rowed)
    monkeypatch.setattr(loopback, "address_of", lambda name, _: name)
    monkeypatch.setattr(loopback, "reach", lambda address: "reached")
    loopback.loopback(tmp_path, "pi", 1, again=False)
    assert asked == ["here", "target"] * 6  # two sweeps of both references and one member
    found = list(loopback.lines(tmp_path))
    assert found[2] == (
        "| over ssh against here | +1.5% (+1.0% to +2.0%) | +1.5% (+1.0% to +2.0%) |"
    )
    assert found[3] == (
        "| here, measured again | +1.0% (+1.0% to +1.0%) | +1.0% (+1.0% to +1.0%) |"
    )
    assert found[-1] == "3 models, onnxruntime; goal: 2%"
    asked.clear()
    loopback.loopback(tmp_path, "pi", 1, again=False)
    assert asked == []
