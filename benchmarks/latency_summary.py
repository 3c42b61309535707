"""The figures of `benchmarks.latency_trust`, from the rows of its files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.latency_accuracy import accuracy_lines

Row = dict[str, Any]
Line = tuple[str, str, str]
"""What is measured, its figure, and the goal or ""."""

NAMES = ("quiet", "itself", "loops", "sessions", "accuracy", "lane", "no-lane")
"""Names of the files, without their suffix."""


def summary(folder: Path) -> list[Line]:
    """Return (what, figure, goal) for every existing file."""
    data = {path.stem: read(path) for path in folder.glob("*.csv") if path.stem in NAMES}
    lines: list[Line] = []
    if "quiet" in data:
        first, second = ({r["digest"]: r for r in data["quiet"] if r["sweep"] == s} for s in "12")
        lines += agreement_lines("quiet, measured again", second, first, "")
        for name in ("lane", "no-lane"):
            if name in data:
                goal = "median 3 %, 95th percentile 8 %, tau 0.95" if name == "lane" else ""
                there = {r["digest"]: r for r in data[name]}
                lines += agreement_lines(f"two workers, {name}", there, first, goal)
    if "lane" in data:
        lines.append(waiting_line(data["lane"]))
    if "itself" in data:
        lines += itself_lines(data["itself"])
    for beside in ("1 busy", "2 busy"):
        if rows := [r for r in data.get("loops", []) if r["beside"] == beside]:
            lines.append(flagged_line(beside, rows))
    if "sessions" in data:
        lines.append(_between_sessions(data["sessions"]))
    if "accuracy" in data:
        lines += accuracy_lines(data["accuracy"])
    return lines


def waiting_line(rows: Sequence[Row]) -> Line:
    """Return (what, figure, goal): the share of the workers' time that trials waited."""
    spent = [{k: float(v or 0) for k, v in r.items() if k.endswith("_s")} for r in rows]
    share = sum(s["waiting_s"] for s in spent) / sum(sum(s.values()) for s in spent)
    return ("cost of the lane", f"{share:.1%} of the workers' time waiting", "")


def flagged_line(beside: str, rows: Sequence[Row]) -> Line:
    """Return (what, figure, goal): the share of measurements beside busy loops that is flagged."""
    flagged = np.mean([bool(r["contention"]) for r in rows])
    return (f"{beside} beside: flagged", f"{flagged:.1%}", "at least 95 %")


def itself_lines(rows: Sequence[Row]) -> list[Line]:
    """Return (what, figure, goal): how often intervals include 1, and how often one is flagged."""
    passed = [r for r in rows if not r["contention"]]
    of_all, of_passed = (
        np.mean([float(one["low"]) <= 1 <= float(one["high"]) for one in some])
        for some in (rows, passed)
    )
    slow = [r for r in rows if "quiet speed" in r["contention"]]
    others = len(rows) - len(passed) - len(slow)
    return [
        (
            f"a model against itself, {len(rows)} times",
            f"{of_passed:.1%} of the {len(passed)} passed as quiet cover 1; {of_all:.1%} of all",
            "93 to 97 %",
        ),
        (
            "flagged with nothing beside",
            f"{len(slow) / len(rows):.1%} because the machine was slow, {others / len(rows):.1%} "
            "for another sign",
            "at most 5 %",
        ),
    ]


def agreement_lines(
    what: str, there: Mapping[str, Row], here: Mapping[str, Row], goal: str
) -> list[Line]:
    """Return (what, figure, goal): the errors of ratios `there` against those `here`."""
    from scipy.stats import kendalltau

    pairs = [(float(there[d]["ratio"]), float(here[d]["ratio"])) for d in here if d in there]
    errors = [abs(a / b - 1) for a, b in pairs]
    tau = kendalltau(*zip(*pairs, strict=True)).statistic
    text = (
        f"median error {median(errors):.1%}, 95th percentile {np.quantile(errors, 0.95):.1%}, "
        f"Kendall tau {tau:.3f} ({len(pairs)} architectures)"
    )
    return [(what, text, goal)]


def _between_sessions(rows: Sequence[Row]) -> Line:
    ratios: dict[str, list[float]] = {}
    for one in rows:
        ratios.setdefault(one["digest"], []).append(float(one["ratio"]))
    spreads = [float(np.std(values, ddof=1) / np.mean(values)) for values in ratios.values()]
    text = (
        f"standard deviation {median(spreads):.2%} of the ratio (largest {max(spreads):.2%}, "
        f"{len(ratios)} architectures)"
    )
    sessions = max(map(len, ratios.values()))
    return (f"between {sessions} processes", text, "at most 1.5 %")


def read(path: Path) -> list[Row]:
    """Read a CSV that `save` wrote; every value is text."""
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))
