"""The causes of a gap add up to it and follow their formulas; texts and page agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.explain import copies as explain_bench
from nas.explain import measure as explain_module
from nas.explain.copies import FOLDED, PLAIN, standard, subject, variant
from nas.explain.explanation import ABLATION_ORDER, CAUSES, Explanation, LatencyGap
from nas.explain.gap import Measured, explain_gap
from nas.explain.measure import ExplainConfig, explain_latency
from nas.explain.terms import bootstrap
from profiling.ablation import Counts
from profiling.environment import fingerprint
from profiling.errors import ProfilingError
from profiling.kinds import KindGroup
from profiling.latency import Latency, TimedModel
from profiling.roofline import Peaks
from profiling.timing import Sample
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.references import MODIFIED, ORIGINAL
from studies.cli.explain import _print as print_words
from studies.cli.explain import explain as command
from studies.profiles.explain_page import waterfall_rows, write_explanation
from studies.profiles.explain_words import Words
from tests.helpers.widths import whole_at_every_width

HERE = fingerprint()
PEAKS = Peaks(gemm_gflop_s=100, copy_gb_s=((10**6, 10),), launch_us=1, environment=HERE)
PLAIN_COUNTS = Counts(
    params=100,
    macs=1000,
    bytes_moved=10,
    launches=10,
    calls=20,
    macs_of={"convolution": 1000},
    launches_of={"activation": 4, "batch_norm": 2, "convolution": 4},
    bytes_of={},
)
DENSE_COUNTS = Counts(
    params=60,
    macs=2000,
    bytes_moved=90,
    launches=100,
    calls=200,
    macs_of={"pointwise": 1500, "depthwise": 500},
    launches_of={
        **{"activation": 30, "batch_norm": 30, "concatenation": 10},
        **{"pointwise": 20, "depthwise": 10},
    },
    bytes_of={},
)
# What each kind takes, in ms. An empty operation takes 0.01 ms, an empty call 0.001 ms.
PLAIN_MS: dict[KindGroup, float] = {"activation": 2.04, "batch_norm": 1.02, "convolution": 20.04}
DENSE_MS: dict[KindGroup, float] = {"activation": 40.3, "batch_norm": 10.3, "concatenation": 5.1}
DENSE_MS |= {"pointwise": 45.2, "depthwise": 14.1}


def timed(ms: float, rounds: int = 4, wall: float = 1.0) -> Latency:
    """A measurement that takes the same CPU time in every round."""
    samples = tuple(Sample(wall * ms, ms) for _ in range(rounds))
    return Latency(TimedModel("", ((1,),), "torch.float32", 1, 1), HERE, samples)


def copies(
    side: Any, spent: Mapping[KindGroup, float], counts: Counts, rest: float
) -> dict[str, float]:
    """Times of all copies of a model whose kinds do not influence each other."""
    total = sum(spent.values()) + rest
    times = {}
    for number, kind in enumerate(ABLATION_ORDER):
        for taken in (ABLATION_ORDER[:number], ABLATION_ORDER[: number + 1], (kind,)):
            gone = sum(spent.get(one, 0.0) for one in taken)
            times[subject(side, taken, counts)] = total - gone
    return times


def measured(default: tuple[float, float] = (25.0, 200.0), wall: float = 1.0) -> Measured:
    kept = copies("a", PLAIN_MS, PLAIN_COUNTS, rest=0.3) | copies(
        "b", DENSE_MS, DENSE_COUNTS, rest=1.0
    )
    kept |= {"launch": 10.0, "call": 1.0}
    kept |= {variant("b", PLAIN): 150.0, variant("b", PLAIN) + ":": 80.0}
    shares = {"a": dict.fromkeys(ABLATION_ORDER, 0.0), "b": dict.fromkeys(ABLATION_ORDER, 0.1)}
    return Measured(
        batch=1,
        counts={"a": PLAIN_COUNTS, "b": DENSE_COUNTS},
        variants={variant("b", PLAIN): replace(DENSE_COUNTS, macs_of={"convolution": 8000})},
        default={"a:": timed(default[0], wall=wall), "b:": timed(default[1], wall=wall)},
        kept={name: timed(ms) for name, ms in kept.items()},
        page_faults={"a": (0.0, 0.0), "b": (9000.0, 1.0)},
        layer_shares=shares,  # type: ignore[arg-type]
        explained_by_layers={"a": 0.99, "b": 0.97},
    )


def explanation(a: str = "original", b: str = "modified", **changes: Any) -> Explanation:
    return Explanation(
        a_name=a,
        b_name=b,
        a=ORIGINAL,
        b=MODIFIED,
        threads=1,
        clock="thread CPU",
        environment=HERE,
        comparisons=(explain_gap(measured(**changes)),),
    )


@pytest.fixture(scope="module")
def found() -> LatencyGap:
    return explain_gap(measured())


def gaps(comparison: LatencyGap) -> dict[str, float]:
    return {cause.key: cause.gap_ms.value for cause in comparison.causes}


def test_causes_are_what_their_formulas_say(found: LatencyGap) -> None:
    # A's convolutions: 20 ms of work for 1000 MACs, so 0.02 ms for each; B does 2000.
    assert gaps(found) == pytest.approx(
        {
            "arithmetic": 40 - 20,
            "convolution": 0,
            "pointwise": 45 - 30,
            "depthwise": 14 - 10,
            "concatenation": 5,
            "normalisation": (40 + 10) - (2 + 1),
            "resampling": 0,
            "linear": 0,
            "overhead": (100 * 0.01 + 200 * 0.001) - (10 * 0.01 + 20 * 0.001),
            "allocator": (200 - 116.0) - (25 - 23.4),
        }
    )
    # A is left with 0.3 ms: 20 calls of 0.001 are known. B with 1.0: 200 calls of 0.001.
    assert found.remainder.gap_ms.value == pytest.approx((1.0 - 0.2) - (0.3 - 0.02))


def test_the_causes_are_in_falling_order_of_size(found: LatencyGap) -> None:
    sizes = [abs(cause.gap_ms.value) for cause in found.causes]
    assert sizes == sorted(sizes, reverse=True)
    assert {cause.key for cause in found.causes} == set(CAUSES)


def test_kinds_that_do_not_influence_each_other_pass_the_check(found: LatencyGap) -> None:
    for cause in found.causes:
        if cause.key in ("allocator", "overhead"):
            assert cause.alone_ms is None
        else:
            assert cause.alone_ms is not None
            assert cause.alone_ms.value == pytest.approx(cause.gap_ms.value)


def test_layer_tables_are_scaled_to_the_time_with_memory_kept(found: LatencyGap) -> None:
    by_layers = {cause.key: cause.layers_ms for cause in found.causes}
    # B: a tenth of 116 ms, less ten launches; A: nothing.
    assert by_layers["concatenation"] == pytest.approx(11.6 - 0.1)


def test_the_rate_of_plain_convolutions_is_measured(found: LatencyGap) -> None:
    entry = found.b.variants[0]
    assert entry.title == PLAIN
    assert entry.ratio.value == pytest.approx(150 / 116)
    assert entry.convolution_gmac_s is not None
    # 70 ms, less 30 launches of convolutions, for 8000 MACs.
    assert entry.convolution_gmac_s.value == pytest.approx(8000 / (70 - 0.3) / 1e6)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_measured_the_bars_add_up(data: st.DataObject) -> None:
    times = st.floats(0.01, 1e4)

    def drawn(latencies: Mapping[str, Latency]) -> dict[str, Latency]:
        return {
            name: replace(
                latency, samples=tuple(Sample(ms, ms) for ms in data.draw(st.tuples(times, times)))
            )
            for name, latency in latencies.items()
        }

    base = measured()
    result = explain_gap(replace(base, default=drawn(base.default), kept=drawn(base.kept)))
    total = sum(gaps(result).values()) + result.remainder.gap_ms.value
    assert total == pytest.approx(result.gap_ms.value, abs=1e-6)
    assert result.gap_ms.value == pytest.approx(result.b.ms.value - result.a.ms.value, abs=1e-6)


def test_a_slow_round_changes_nothing() -> None:
    quiet = {"fast": [1.0, 1.0, 1.0], "slow": [10.0, 10.0, 10.0], "other": [5.0, 5.0, 5.0]}
    disturbed = {name: [times[0], 2 * times[1], 3 * times[2]] for name, times in quiet.items()}
    medians = bootstrap(disturbed)
    # Only the pace that all rounds share stays: that of the middle round.
    assert {name: times[0] for name, times in medians.items()} == {
        name: pytest.approx(2 * times[0]) for name, times in quiet.items()
    }
    assert all(np.ptp(times) == pytest.approx(0) for times in medians.values())


def test_waiting_is_reported_and_not_counted() -> None:
    result = explain_gap(measured(wall=2.0))
    assert result.b.ms.value == pytest.approx(200)
    assert result.contended
    assert "wall time is 2.00 of CPU time" in result.b.contention[0]
    made = explanation(wall=2.0)
    (note,) = Words(made, made.comparisons[0]).notes
    assert note.startswith("Batch 1: the machine was busy during the measurement (`original`: the")
    assert not explain_gap(measured()).contended
    assert words().notes == []
    contended = {cause.key for cause in result.causes if cause.contended}
    assert contended == {"allocator"}


def test_an_explanation_reads_itself_back() -> None:
    written = explanation()
    assert Explanation.model_validate_json(written.model_dump_json()) == written


def test_standard_changes_only_the_kind_of_convolution() -> None:
    plain = standard(MODIFIED)
    stages = (*plain.encoder.stages, *plain.decoder.stages)
    assert {stage.convolution for stage in stages} == {"standard"}
    assert [stage.width for stage in stages] == [64, 128, 256, 512, 256, 128, 64, 32]
    assert standard(ORIGINAL) == ORIGINAL


def words(**changes: Any) -> Words:
    made = explanation(**changes)
    return Words(made, made.comparisons[0])


def test_the_verdict_is_reported_from_the_numbers() -> None:
    assert words().verdict == (
        "`modified` has 1.7x fewer parameters but is 8.0x slower at batch 1 (200 ms against "
        "25.0 ms): 47 % of the gap is page faults of the allocator, 27 % BatchNorm and "
        "activations, 11 % arithmetic of convolutions and 9 % efficiency of pointwise "
        "convolutions; it does 2.00x the MACs, and at the rate of `original`'s convolutions "
        "that alone would make it only 1.80x slower."
    )


def test_the_verdict_names_faster_and_equal_models() -> None:
    faster = words(default=(200.0, 100.0)).verdict
    assert "fewer parameters and is 2.0x faster at batch 1" in faster
    equal = words(default=(100.0, 100.0)).verdict
    assert equal.startswith("`modified` and `original` cannot be distinguished at batch 1")


def test_the_checks_are_summed_up() -> None:
    # In order and alone: 20 + 15 + 4 + 5 + 47. By layers: B's eight kinds at a tenth of 116 ms less
    # their 100 launches; A's at zero less its 10, and so a rate of zero for its convolutions.
    assert words().order_check == (
        "Removed in order, the kinds of operation account for 91.0 ms of the gap; each removed "
        "alone, for 91.0 ms (100 %); in the layer tables, for 91.9 ms (101 %)."
    )


def test_the_table_ends_with_the_sum() -> None:
    rows = words().causes
    assert [row["key"] for row in rows[-2:]] == ["remainder", "sum"]
    assert rows[-1]["gap"] == "175.0"
    assert rows[-1]["share"] == "100 %"


def test_the_table_is_whole_at_every_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_at_every_width(lambda: print_words(words()), capsys, monkeypatch)


def test_the_bars_lead_from_one_time_to_the_other() -> None:
    first, *causes, last = waterfall_rows(words())
    assert (first["start"], first["length"]) == (0, pytest.approx(25))
    assert (last["start"], last["length"]) == (0, pytest.approx(200))
    for before, after in zip([{"start": 0, "length": 25}, *causes], causes, strict=False):
        assert after["start"] == pytest.approx(before["start"] + before["length"])
    assert causes[-1]["start"] + causes[-1]["length"] == pytest.approx(200)


def test_the_page_needs_nothing_else_and_trusts_no_name(tmp_path: Path) -> None:
    page = write_explanation(explanation(a="<b>x</b>"), tmp_path / "new" / "page.html")
    text = page.read_text(encoding="utf-8")
    assert "<b>x</b>" not in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(?!data:)", text)
    assert 'id="plot-batch-1-gap"' in text
    assert "page faults of the allocator" in text


def test_a_page_that_cannot_be_written_is_a_users_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="the page cannot be written"):
        write_explanation(explanation(), blocked / "page.html")


class InProcess:
    """Stands in for a fresh process: the same calls, here."""

    def __init__(self, factory: Callable[..., Any], *args: Any, tuned: bool = False) -> None:
        self._built = factory(*args)

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def call(self, method: str, *args: Any, progress: Any = None) -> Any:
        extra = {"progress": progress} if progress else {}
        return getattr(self._built, method)(*args, **extra)


def tiny(**stage: Any) -> Architecture:
    """A network for 8 x 8 pixels."""
    return Architecture.from_dict(
        {
            "image_size": 8,
            "latent_size": 2,
            "encoder": {"stages": [{"width": 4, **stage}]},
            "decoder": {"seed_width": 4, "stages": [{"width": 4, **stage}]},
        }
    )


@pytest.mark.slow
def test_two_networks_are_explained_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "FreshProcess", InProcess)
    monkeypatch.setattr(explain_bench, "measure_peaks", lambda *args: PEAKS)
    monkeypatch.setattr(explain_bench, "EMPTY", 3)
    seen: list[tuple[int, int]] = []
    dense = tiny(block="dense", convolution="pointwise_first", growth_rate=2)
    config = ExplainConfig(batches=(1, 2), rounds=2, alternations=1, device="cpu")
    result = explain_latency(
        tiny(), dense, ("plain", "dense"), config, progress=lambda *step: seen.append(step)
    )
    assert [comparison.batch for comparison in result.comparisons] == [1, 2]
    one, two = result.comparisons
    assert two.b.counts.macs == 2 * one.b.counts.macs
    assert [step.kind for step in one.a.steps] == [
        "activation", "batch_norm", "resampling", "linear", "convolution"
    ]  # fmt: skip
    assert [step.kind for step in one.b.steps] == [
        kind for kind in ABLATION_ORDER if one.b.counts.launches_of.get(kind)
    ]
    assert [entry.title for entry in one.a.variants] == [FOLDED]
    assert [entry.title for entry in one.b.variants] == [PLAIN, FOLDED]
    total = sum(gaps(two).values()) + two.remainder.gap_ms.value
    assert total == pytest.approx(two.gap_ms.value, abs=1e-9)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_models_of_different_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"one takes 3x144x144 images, the other 3x64x64"):
        explain_latency(ORIGINAL, MODIFIED.resized(64))


@pytest.mark.slow
def test_a_batch_too_big_for_memory_is_refused_before_anything_runs() -> None:
    with pytest.raises(ProfilingError, match="use a smaller batch"):
        explain_latency(ORIGINAL, MODIFIED, config=ExplainConfig(batches=(10**7,), device="cpu"))


@pytest.mark.parametrize(
    ("batches", "told"),
    [("0", "range"), ("1,x", "whole number"), ("-1", "range"), ("", "one batch size or several")],
)
def test_a_bad_batch_is_refused_in_one_line(batches: str, told: str) -> None:
    outcome = CliRunner().invoke(command, ["original", "modified", "--batch", batches])
    assert outcome.exit_code == 2
    assert told in outcome.output


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    outcome = CliRunner().invoke(command, ["original", "modifed"])
    assert isinstance(outcome.exception, UserError)
    assert "did you mean 'modified'?" in str(outcome.exception)


def test_the_command_writes_page_numbers_and_causes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def fake(a: Any, b: Any, names: Any, config: ExplainConfig, **rest: Any) -> Explanation:
        asked.append((a, b, names, config.batches))
        return explanation(*names)

    monkeypatch.setattr(explain_module, "explain_latency", fake)
    arguments = ["original", "modified", "--batch", "1,8", "--out", str(tmp_path)]
    outcome = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert asked == [(ORIGINAL, MODIFIED, ("original", "modified"), (1, 8))]
    assert "is 8.0x slower at batch 1" in " ".join(outcome.output.split())
    numbers = json.loads((tmp_path / "explain.json").read_text())
    assert numbers["comparisons"][0]["gap_ms"]["value"] == pytest.approx(175)
    causes = (tmp_path / "causes.csv").read_text().splitlines()
    assert len(causes) == 1 + len(CAUSES) + 1
    assert (tmp_path / "explain.html").exists()
