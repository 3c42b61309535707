"""The words and the page of two models in one set-up, or of one model in two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.explain.explanation import Estimate
from nas.explain.in_setups import Compared, Comparison
from profiling.executed import KINDS
from studies.pages.page import render, write_page
from studies.record.formats import format_ms

EAGER_ONLY = (
    "Causes of a gap are measured by removing operations from the model, which is only possible in "
    "eager PyTorch: leave the options of the set-up out."
)

_TITLES = {
    "convolution": "convolutions",
    "linear": "linear layers",
    "batch_norm": "BatchNorm",
    "activation": "activations",
    "concatenation": "concatenation",
    "resampling": "resampling and pooling",
    "layout": "changes of memory layout",
    "other": "other element-wise operations",
}


def names(found: Comparison) -> tuple[str, str]:
    """Return what tells the two apart: the model, or the set-up if the model is the same."""
    first, second = found.first, found.second
    if first.setup != second.setup:
        return first.setup, second.setup
    return first.name, second.name


def verdict(found: Comparison) -> str:
    """Return one sentence: how much slower or faster the second one is."""
    one, other = names(found)
    same = found.first.setup == found.second.setup
    where = f"in {found.first.setup}" if same else f"as `{found.first.name}`"
    over = found.second.over
    times = f"{format_ms(found.second.ms.value)} against {format_ms(found.first.ms.value)}"
    lead = f"`{other}` {where} at batch {found.batch}"
    if over.low <= 1 <= over.high:
        return f"{lead} cannot be distinguished from `{one}` ({times})."
    factor, word = (over.value, "slower") if over.value > 1 else (1 / over.value, "faster")
    return f"{lead} is {factor:.2f}x {word} than `{one}` ({times})."


def time_rows(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Return (model, set-up, latency, its interval, over the first one) of the two."""
    return [_time_row(one, found.first) for one in (found.first, found.second)]


def _time_row(one: Compared, first: Compared) -> tuple[str, str, str, str, str]:
    over = "" if one is first else f"{_times(one.over.value)} ({_range(one.over, _times)})"
    return one.name, one.setup, format_ms(one.ms.value), _range(one.ms, format_ms), over


def _times(value: float) -> str:
    return f"{value:.2f}x"


def _range(estimate: Estimate, words: object) -> str:
    assert callable(words)
    return f"{words(estimate.low)} to {words(estimate.high)}"


def operation_rows(found: Comparison) -> list[tuple[str, str, str]]:
    """Return (kind, number in the first one, number in the second one) and the totals.

    There are no rows where neither is known; "?" stands for what is not known.
    """
    counts = [one.executed for one in (found.first, found.second)]
    if not any(counts):
        return []
    kinds = [kind for kind in KINDS if any((one or {}).get(kind) for one in counts)]
    rows = [(_TITLES[kind], [one and one.get(kind, 0) for one in counts]) for kind in kinds]
    rows.append(("all operations", [one and sum(one.values()) for one in counts]))
    return [(title, *_numbers(row)) for title, row in rows]


def _numbers(row: Sequence[object]) -> tuple[str, str]:
    first, second = ("?" if one is None else str(one) for one in row)
    return first, second


def notes(found: Comparison) -> list[str]:
    """Return remarks: rewrites, signs of contention, and where causes are measured."""
    rewrites = {one.setup: one.rewrites for one in (found.first, found.second) if one.rewrites}
    lines = [f"{setup}: {words}." for setup, words in rewrites.items()]
    if found.contention:
        lines.append(f"The machine was busy ({'; '.join(found.contention)}).")
    return [*lines, EAGER_ONLY]


def write_comparison(comparisons: Sequence[Comparison], path: Path) -> Path:
    """Write the page as one self-contained HTML file and return its path.

    Raises:
        UserError: The file cannot be written.
    """
    first = comparisons[0]
    parts = [
        {
            "found": one,
            "verdict": verdict(one),
            "times": time_rows(one),
            "operations": operation_rows(one),
            "notes": notes(one),
        }
        for one in comparisons
    ]
    facts = [
        ("Set-up", " / ".join(dict.fromkeys((first.first.setup, first.second.setup)))),
        ("Device", first.environment.device_name),
        ("Timed on", first.fed),
        ("Threads", str(first.environment.threads)),
        ("Rounds", ", ".join(f"{one.rounds} (batch {one.batch})" for one in comparisons)),
    ]
    environment = first.environment.model_dump_json(indent=1)
    context = {
        "names": names(first), "parts": parts, "facts": facts, "environment": environment,
    }  # fmt: skip
    return write_page(path, render("explain_setups.html", context, plots=False), "page")
