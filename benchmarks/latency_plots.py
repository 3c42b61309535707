"""Draw the results of `benchmarks.latency_trust` and `benchmarks.predictor`.

`python -m benchmarks.latency_plots DIR IMAGES` reads the CSV files in DIR and writes PNGs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from studies.pages.style import AMBER, BLUE, GREY, new_figure

WIDTH, HEIGHT = 860, 420
RED = "#d55e00"


def beside_training(quiet: pd.DataFrame, lane: pd.DataFrame, without: pd.DataFrame) -> go.Figure:
    """Plot the error of each architecture's ratio inside a study, relative to a quiet machine."""
    figure = new_figure("Latency measured while another worker trains, against a quiet machine")
    truth = quiet[quiet["sweep"] == 1].set_index("digest")["ratio"]
    again = quiet[quiet["sweep"] == 2]
    for table, name, colour, symbol in (
        (without, "without the lane", RED, "x"),
        (lane, "with the lane", BLUE, "circle"),
        (again, "quiet, a second time", GREY, "circle-open"),
    ):
        expected = truth.loc[table["digest"]].to_numpy()
        figure.add_scatter(
            x=expected,
            y=table["ratio"].to_numpy() / expected - 1,
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
        )
    figure.update_xaxes(type="log", title="latency over that of original, quiet", dtick=0.30103)
    figure.update_yaxes(tickformat="+.0%", title="error")
    return figure


def coverage(itself: pd.DataFrame) -> go.Figure:
    """Plot the intervals of a model's ratio to itself, sorted."""
    figure = new_figure("A model against a copy of itself: 95 % intervals of the ratio")
    table = itself.sort_values("ratio").reset_index(drop=True)
    covers = (table["low"] <= 1) & (table["high"] >= 1)
    for mask, name, colour in ((covers, "covers 1", GREY), (~covers, "does not", RED)):
        part = table[mask]
        figure.add_scatter(
            x=part.index,
            y=part["ratio"],
            error_y={
                "array": part["high"] - part["ratio"],
                "arrayminus": part["ratio"] - part["low"],
                "symmetric": False,
                "thickness": 1,
                "width": 0,
            },
            mode="markers",
            marker={"color": colour, "size": 4},
            name=f"{name} ({len(part)} of {len(table)})",
        )
    figure.update_yaxes(title="ratio", tickformat=".2f")
    figure.update_xaxes(title="comparison, sorted", showgrid=False)
    return figure


def alarms(itself: pd.DataFrame, loops: pd.DataFrame) -> go.Figure:
    """Plot ratios of a model to itself with no, one and two busy loops running."""
    figure = new_figure("Busy loops beside a measurement: what they do, and what is noticed")
    table = pd.concat([itself, loops], ignore_index=True)
    noticed = table["contention"].fillna("") != ""
    kinds = list(dict.fromkeys(table["beside"]))
    aside = np.random.default_rng(0).uniform(-0.25, 0.25, len(table))
    for mask, name, colour in ((~noticed, "passed as quiet", BLUE), (noticed, "flagged", AMBER)):
        part = table[mask]
        figure.add_scatter(
            x=part["beside"].map(kinds.index) + aside[part.index],
            y=part["ratio"] - 1,
            mode="markers",
            name=f"{name} ({len(part)})",
            marker={"color": colour, "size": 6, "opacity": 0.8},
        )
    figure.update_yaxes(title="error of the ratio (truth: 0)", tickformat="+.0%")
    ticks = list(range(len(kinds)))
    figure.update_xaxes(title="running beside it", showgrid=False, tickvals=ticks, ticktext=kinds)
    return figure


def between(sessions: pd.DataFrame) -> go.Figure:
    """Plot each process's ratio divided by the median of all processes."""
    figure = new_figure("The same ratio from separate processes")
    for number, (digest, part) in enumerate(sessions.groupby("digest", sort=False), start=1):
        middle = part["ratio"].median()
        figure.add_scatter(
            x=np.full(len(part), number),
            y=part["ratio"] / middle - 1,
            mode="markers",
            marker={"color": BLUE, "size": 9, "opacity": 0.6},
            name=str(digest),
            showlegend=False,
        )
    ratios = sessions.groupby("digest", sort=False)["ratio"].median()
    figure.update_xaxes(
        tickvals=list(range(1, len(ratios) + 1)),
        ticktext=[f"{ratio:.2f} x original" for ratio in ratios],
        title="architecture",
        showgrid=False,
    )
    figure.update_yaxes(tickformat="+.1%", title="from the median")
    return figure


def predictions(table: pd.DataFrame, columns: dict[str, str]) -> go.Figure:
    """Plot the share of held-out architectures whose prediction is within an error, by method."""
    figure = new_figure("Predicted latency of architectures it was not fitted to")
    for (column, name), colour in zip(columns.items(), (BLUE, RED, GREY), strict=True):
        errors = np.sort(np.abs(table[column] / table["measured"] - 1))
        figure.add_scatter(
            x=errors,
            y=(np.arange(len(errors)) + 1) / len(errors),
            mode="lines",
            line={"color": colour, "width": 2.5, "shape": "hv"},
            name=name,
        )
    figure.add_vline(x=0.1, line={"color": GREY, "width": 1, "dash": "dot"})
    ticks = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    figure.update_xaxes(
        type="log",
        tickvals=ticks,
        ticktext=[f"{100 * tick:g}%" for tick in ticks],
        range=[np.log10(ticks[0]), np.log10(1.3)],
        title="error of at most",
    )
    figure.update_yaxes(tickformat=".0%", title="share of architectures", range=[0, 1.02])
    return figure


def main() -> None:
    """Write one PNG per figure whose data exist."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("images", type=Path)
    asked = parser.parse_args()
    asked.images.mkdir(parents=True, exist_ok=True)
    table = {path.stem: pd.read_csv(path) for path in asked.data.glob("*.csv")}
    made = {
        "beside_training": (beside_training, ("quiet", "lane", "no-lane")),
        "coverage": (coverage, ("itself",)),
        "alarms": (alarms, ("itself", "loops")),
        "sessions": (between, ("sessions",)),
    }
    for name, (draw, needs) in made.items():
        if all(need in table for need in needs):
            figure: go.Figure = draw(*(table[need] for need in needs))  # type: ignore[operator]
            save(figure, asked.images / f"latency-{name}.png")
    if "predictor" in table:
        columns = {
            "predictor": "operations added up",
            "macs_only": "MACs only",
            "launches_only": "launches only",
        }
        save(predictions(table["predictor"], columns), asked.images / "latency-predictor.png")


def save(figure: go.Figure, path: Path) -> None:
    """Write a figure as PNG."""
    figure.write_image(path, width=WIDTH, height=HEIGHT, scale=2)
    print(path)


if __name__ == "__main__":
    main()
