"""Turn the results of many seeds into curves with quantile bands and one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from studies.bench.tables import METRICS

Result = Mapping[str, Any]

OVER = ("evaluations", "epochs", "time_s")
"""Horizontal axes of regret: candidates that ended, epochs trained, simulated seconds."""

NEAR = 0.01
"""Regret from which the front counts as found: 99 % of its hypervolume."""

QUANTILES = {"low": 0.25, "median": 0.5, "high": 0.75}
_POINTS = 200


def curves(results: Sequence[Result], over: str, metric: str = "regret") -> pd.DataFrame:
    """Return one row per sampler and point of a common grid.

    Columns: `sampler`, the axis named by `over`, `low`, `median`, `high` (quartiles over the seeds
    of a figure of `Quality`) and `seeds`. After the last result of a search its figure stays
    constant.
    """
    frames = []
    for sampler, found in _by_sampler(results).items():
        end = max(result[over][-1] for result in found)
        grid = np.unique(np.linspace(0, end, _POINTS).round(0 if over != "time_s" else 6))
        figures = np.stack([_on_grid(result, over, metric, grid) for result in found])
        bands = {name: np.quantile(figures, q, axis=0) for name, q in QUANTILES.items()}
        columns = {"sampler": sampler, over: grid, **bands, "seeds": len(found)}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def summary(results: Sequence[Result]) -> pd.DataFrame:
    """Return one row per sampler: its costs until regret falls to `NEAR`, and its final regret.

    `to_99_evaluations`, `to_99_epochs`, `to_99_s`: medians over all seeds, infinite where half of
    the seeds never reach `NEAR`; `reached`: the number of seeds that do; `regret_*`: quartiles at
    the end; `regret_fitted`: the median regret of that front together with the fitted one;
    `accurate`, `igd_plus` and `lowest`: medians at the end, as in `Quality`; `duplicates`: mean
    number of repeated trainings; `ask_ms`: median of seeds' medians.
    """
    rows = []
    for sampler, found in _by_sampler(results).items():
        ends = np.asarray([result["regret"][-1] for result in found])
        to_near = {over: [_first_near(result, over) for result in found] for over in OVER}
        rows.append(
            {
                "sampler": sampler,
                "seeds": len(found),
                "reached": int(np.isfinite(to_near["epochs"]).sum()),
                "to_99_evaluations": _median(to_near["evaluations"]),
                "to_99_epochs": _median(to_near["epochs"]),
                "to_99_s": _median(to_near["time_s"]),
                **{f"regret_{name}": np.quantile(ends, q) for name, q in QUANTILES.items()},
                "regret_fitted": np.median([result["regret_fitted"] for result in found]),
                **{name: np.median([one[name][-1] for one in found]) for name in METRICS[1:]},
                "duplicates": np.mean([result["duplicates"] for result in found]),
                "distinct": np.mean([result["distinct"] for result in found]),
                "ask_ms": np.median([result["ask_ms"] for result in found]),
            }
        )
    return pd.DataFrame(rows).sort_values(["to_99_epochs", "regret_median"], ignore_index=True)


def markdown(
    table: pd.DataFrame, titles: Mapping[str, str], timed: bool = True, noisy: bool = False
) -> str:
    """Write the summary as a Markdown table.

    Epochs and seconds are shown where they were `timed`, the fitted front where losses are `noisy`.
    """
    heads = ["sampler", "evaluations to 99 %"]
    heads += ["epochs to 99 %", "simulated time to 99 %"] if timed else []
    heads += ["seeds there", "regret at the end (quartiles)"]
    heads += ["with the fitted front"] if noisy else []
    heads += ["accurate half", "IGD+", "lowest loss", "repeated trainings", "ask"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in table.to_dict("records"):
        epochs = (
            [number_reached(row["to_99_epochs"]), minutes_reached(row["to_99_s"])] if timed else []
        )
        regret = f"{row['regret_median']:.4f} ({row['regret_low']:.4f} to {row['regret_high']:.4f})"
        cells = [
            titles.get(row["sampler"], row["sampler"]),
            number_reached(row["to_99_evaluations"]),
        ]
        cells += [*epochs, f"{row['reached']}/{row['seeds']}", regret]
        cells += [f"{row['regret_fitted']:.4f}"] if noisy else []
        cells += [f"{row['accurate']:.4f}", f"{row['igd_plus']:.4f}", above(row["lowest"])]
        cells += [f"{row['duplicates']:.1f}", f"{row['ask_ms']:.1f} ms"]
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _by_sampler(results: Sequence[Result]) -> dict[str, list[Result]]:
    grouped: dict[str, list[Result]] = {}
    for result in results:
        grouped.setdefault(result["sampler"], []).append(result)
    return grouped


def _on_grid(
    result: Result, over: str, metric: str, grid: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    latest = np.searchsorted(result[over], grid, side="right") - 1
    return np.asarray(np.asarray(result[metric])[latest])


def _first_near(result: Result, over: str) -> float:
    near = np.asarray(result["regret"]) <= NEAR
    return float(np.asarray(result[over])[near.argmax()]) if near.any() else np.inf


def _median(values: Sequence[float]) -> float:
    """Return the upper median: infinite if at least half of the values are infinite."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def number_reached(value: float) -> str:
    """Return a whole number as text, or `not reached` for infinity."""
    return f"{value:.0f}" if np.isfinite(value) else "not reached"


def above(share: float) -> str:
    """Return how far the lowest loss found is above the lowest of the table, as text."""
    return "found" if share < 5e-6 else f"+{share:.2%}"


def minutes_reached(seconds: float) -> str:
    """Return a time in minutes as text, or `not reached` for infinity."""
    return f"{seconds / 60:.1f} min" if np.isfinite(seconds) else "not reached"
