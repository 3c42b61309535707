"""Do set-ups order architectures alike? Kendall's tau between the rows of `orders`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.deployment.orders import rows_of
from benchmarks.latency_summary import Row

Ratios = Mapping[str, float]
_RESAMPLES = 1000


def sweeps(rows: Sequence[Row]) -> dict[str, list[dict[str, float]]]:
    """Return set-up -> digest -> ratio to `original`, in the first and in the second sweep."""
    found: dict[str, list[dict[str, float]]] = {}
    for one in rows:
        if one["ratio"]:
            both = found.setdefault(one["setup"], [{}, {}])
            both[int(one["sweep"]) - 1][one["digest"]] = float(one["ratio"])
    return found


def tau(one: Ratios, other: Ratios) -> float:
    """Return Kendall's tau of two measurements over the models that both have; NaN for too few."""
    from scipy.stats import kendalltau

    common = [key for key in one if key in other]
    if len(common) < 2:
        return math.nan
    return float(kendalltau([one[key] for key in common], [other[key] for key in common]).statistic)


def tau_interval(one: Ratios, other: Ratios) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of Kendall's tau, over resampled models."""
    common = np.array([key for key in one if key in other])
    rng, taus = np.random.default_rng(0), list[float]()
    for _ in range(_RESAMPLES):
        drawn = {str(n): str(key) for n, key in enumerate(rng.choice(common, len(common)))}
        taus.append(tau(*({n: of[key] for n, key in drawn.items()} for of in (one, other))))
    low, high = np.nanquantile(taus, (0.025, 0.975))
    return float(low), float(high)


def matrix(found: Mapping[str, Sequence[Ratios]]) -> Iterator[str]:
    """Yield a Markdown table of tau between set-ups, with repeatability on the diagonal."""
    yield "| | " + " | ".join(found) + " |"
    yield "|---" * (len(found) + 1) + "|"
    for row, (own, again) in found.items():
        cells = [_cell(tau(own, again if row == column else found[column][0])) for column in found]
        yield f"| {row} | " + " | ".join(cells) + " |"


def against(rows: Sequence[Row], base: str = "eager") -> Iterator[str]:
    """Yield a Markdown table of every set-up against one of them.

    A model is faster than `original` if the whole interval of its ratio is below 1.
    """
    found, first = sweeps(rows), [one for one in rows if one["sweep"] == "1" and one["ratio"]]
    yield f"| against {base} | Kendall's tau | 95 % interval | faster than `original` | speed-up |"
    yield "|---|---|---|---|---|"
    times = {(one["setup"], one["digest"]): float(one["candidate_ms"]) for one in first}
    for name, (own, _) in found.items():
        mine = [one for one in first if one["setup"] == name]
        faster = sum(float(one["high"]) < 1 for one in mine)
        gains = [
            times[base, one["digest"]] / times[name, one["digest"]]
            for one in mine
            if (base, one["digest"]) in times
        ]
        between, of = found[base][0], f"{faster} of {len(mine)}"
        low, high = tau_interval(own, between) if name != base else (1.0, 1.0)
        yield (
            f"| {name} | {tau(own, between):.2f} | {low:.2f} to {high:.2f} | {of} | "
            f"{min(gains):.1f} to {max(gains):.1f} |"
        )


def summary(folder: Path) -> list[str]:
    """Return the lines of both tables, and the number of contended and failed measurements."""
    rows = rows_of(folder).all
    found = sweeps(rows)
    lines = [*matrix(found), ""]
    if "eager" in found:
        lines += [*against(rows), ""]
    busy = sum(bool(one["contention"]) for one in rows)
    failed = sum(bool(one["failure"]) for one in rows)
    return [*lines, f"{len(rows)} measurements, {busy} on a busy machine, {failed} failed"]


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
