"""Numbers that users type, and numbers in refusals that users type back."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import UserError, condensed, quoted
from search_spaces.numbers import MOST, at_least, at_most
from search_spaces.visible import visible
from studies.cli.options import Listed, Positive, Whole
from studies.config.loading import load_config, parse_overrides

positive = st.floats(min_value=1e-9, max_value=1e18)


@given(positive)
@pytest.mark.slow
def test_a_number_typed_back_meets_the_limit_that_it_came_from(value: float) -> None:
    option = Positive(1e30)
    assert option.convert(at_least(value), None, None) >= value
    assert option.convert(at_most(value), None, None) <= value
    config = load_config(
        "quickstart", parse_overrides([f"limits.params={at_least(value)}"], "--set")
    )
    assert config.limits["params"] >= value


@given(positive)
def test_it_is_within_a_part_in_100_000(value: float) -> None:
    assert float(at_least(value)) == pytest.approx(value, rel=1e-5)
    assert float(at_most(value)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        (2424.0, "2424", "2424"),
        (123456789, "123456789", "123456789"),
        (0.1, "0.1", "0.1"),
        (3.21412349, "3.21413", "3.21412"),
        (1e20 / 3, "33333400000000000000", "33333300000000000000"),
    ],
)
def test_whole_numbers_are_exact_and_others_rounded_to_the_safe_side(
    value: float, up: str, down: str
) -> None:
    assert (at_least(value), at_most(value)) == (up, down)


@pytest.mark.parametrize(
    "text",
    ["", "x", "nan", "inf", "1e400", "1.5", "0x10", "1_000", "9" * 5000, "\u0663", "-1", "1e3"],
)  # fmt: skip
def test_a_whole_number_is_written_in_digits(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Whole(0).convert(text, None, None)
    assert Whole(0).convert("12", None, None) == 12
    with pytest.raises(click.BadParameter, match="is not in the range"):
        Whole(0).convert(str(MOST + 1), None, None)


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "-inf", "1e400", "0", "-1", "\u0663", "0x1"]
)
def test_a_positive_number_is_finite(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Positive().convert(text, None, None)
    assert Positive().convert("2.5e1", None, None) == 25


@pytest.mark.parametrize(("text", "told"), [("", "give one"), (",", "give one"), ("a,,b", "one"),
                                            ("a,", "one"), ("a,b,a", "twice")])  # fmt: skip
def test_a_list_has_entries(text: str, told: str) -> None:
    with pytest.raises(click.BadParameter, match=told):
        Listed(click.STRING, "name").convert(text, None, None)
    assert Listed(Whole(1), "batch size").convert("8, 1", None, None) == [8, 1]


NUMBERS = (
    *("training.epochs", "training.learning_rate", "training.kl_weight", "data.count", "data.seed"),
    *("latency.max_s", "latency.batch", "latency.seed", "latency.half_width", "search.trials"),
    *(
        "search.seed",
        "workers",
        "threads",
        "limits.params",
        "trial_timeout_s",
        "ray.cpus_per_trial",
    ),
    *("trial_memory_bytes", "search.early_stopping.eta", "ray.memory_gb_per_trial"),
)


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "text",
    [".nan", ".inf", "1e400", "0x_", "9" * 400, "2026-01-01", "1:30", "true", "'\u0663'", "-1"],
)
def test_every_number_of_a_configuration_is_finite_and_in_range(key: str, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(key)):
        load_config("quickstart", parse_overrides([f"{key}={text}"], "--set"))


def test_5000_unknown_keys_are_ten_lines_and_a_count() -> None:
    with pytest.raises(UserError) as refused:
        load_config("quickstart", {f"key{number}": 1 for number in range(5000)})
    lines = str(refused.value).splitlines()
    assert len(lines) == 11
    assert lines[-1].endswith("and 4990 more")


@given(st.text(max_size=3000))
@pytest.mark.slow
def test_messages_are_short_and_printable(text: str) -> None:
    for line in condensed(f"x: {text}").split("\n"):
        assert len(line) <= 500
        assert visible(line) == line


def test_a_long_value_keeps_both_ends_and_the_remedy() -> None:
    told = condensed(f"--set {'x' * 5000}: write it as key=value")
    assert told.startswith("--set xxxx")
    assert told.endswith("xxx: write it as key=value")
    assert quoted("a\x1b") == r"'a\x1b'"


def test_faults_beyond_ten_are_counted() -> None:
    faults: list[Any] = [f"x: {number}" for number in range(14)]
    assert condensed("\n".join(faults)).split("\n")[9:] == ["x: 9", "and 4 more"]
