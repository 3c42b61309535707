"""Does a target measure what this machine measures? The same models here and over ssh, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.deployment.orders import CPU, LIMITS, members
from benchmarks.deployment.rows import MEASURED, Rows, fill
from benchmarks.latency_summary import Row
from benchmarks.latency_trust import row
from nas.latency import Meter, address_of
from nas.setups import SetUp
from profiling.target.client import reach
from search_spaces.architecture import Architecture

KEY = ("digest", "sweep", "place")
BACKEND = "onnxruntime"
GOAL = 0.02
"""Largest median difference between both places."""

SWEEPS = ("1", "2")


def rows_of(folder: Path) -> Rows:
    """Return the rows of a folder."""
    return Rows(folder / "loopback.csv", KEY, MEASURED)


def loopback(folder: Path, target: str, count: int, again: bool) -> None:
    """Measure what the folder lacks: `count` members of the space and both references.

    Args:
        folder: Where the rows are.
        target: A target of the user's list that is this machine.
        count: Number of members.
        again: Also repeat contended measurements.
    """
    address = address_of(target, "--target")
    places = {
        "here": Meter(SetUp.model_validate({**LIMITS, "backend": BACKEND}), CPU),
        "target": Meter(
            SetUp.model_validate({**LIMITS, "backend": BACKEND, "target": target}), reach(address)
        ),
    }

    def jobs() -> Iterator[Any]:
        for one in members(count).values():
            for sweep in SWEEPS:
                for place in places:
                    yield (one.digest, sweep, place), (place, one)

    def measured(job: tuple[str, Architecture]) -> Row:
        place, architecture = job
        return row(places[place].measure(architecture)[0])

    fill(rows_of(folder), jobs(), measured, "measured", again=again)


def lines(folder: Path) -> Iterator[str]:
    """Yield a Markdown table: how far both places, and two measurements here, are apart."""
    rows = {
        tuple(one[key] for key in KEY): {name: float(one[name]) for name in _COMPARED}
        for one in rows_of(folder).all
    }
    digests = list(dict.fromkeys(digest for digest, _, _ in rows))
    apart = {
        "over ssh against here": (("1", "target"), ("1", "here"), ("2", "target"), ("2", "here")),
        "here, measured again": (("2", "here"), ("1", "here")),
    }
    yield "| | latency: median (range) | ratio to `original`: median (range) |"
    yield "|---|---|---|"
    for what, pairs in apart.items():
        cells = []
        for name in _COMPARED:
            found = [
                rows[digest, *one][name] / rows[digest, *other][name] - 1
                for digest in digests
                for one, other in zip(pairs[::2], pairs[1::2], strict=True)
                if (digest, *one) in rows and (digest, *other) in rows
            ]
            cells.append(
                f"{statistics.median(found):+.1%} ({min(found):+.1%} to {max(found):+.1%})"
            )
        yield f"| {what} | {' | '.join(cells)} |"
    yield ""
    yield f"{len(digests)} models, {BACKEND}; goal: {GOAL:.0%}"


_COMPARED = ("candidate_ms", "ratio")
