"""Regret curves with quantile bands: one HTML page and one PNG per figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from search_spaces.errors import UserError
from studies.bench.contenders import CONTENDERS
from studies.pages.pngs import draw_pngs
from studies.pages.style import AMBER, BLUE, GREY, INK, log_ticks, new_figure

OVER_TITLES = {
    "evaluations": "Evaluated candidates",
    "epochs": "Trained epochs",
    "time_s": "Simulated time (s)",
}

ALGORITHM_COLOURS = {
    "random": GREY,
    "syne-tune-moasha": INK,
    "neps-moasha": "#56b4e9",
    "tpe": AMBER,
    "optuna-tpe": "#d55e00",
    "nsga2": "#009e73",
    "nsga3": "#b0438b",
    "qmc": "#8c7300",
    "pareto-all-known": "#009e73",
    "pareto-accurate": "#b0438b",
    "pareto-cheap": INK,
    "pareto-no-costs": "#d55e00",
    "pareto-axes-only": AMBER,
    "pareto-refined": "#6a51a3",
    "pareto-no-surrogate": GREY,
    "pareto-stopping-at-once": "#8c7300",
    "pareto-extrapolating": "#56b4e9",
}
"""One colour per algorithm, ours or Optuna's; algorithms that are not listed are blue."""

DASHES = {"ours": "solid", "ablation": "solid", "optuna": "dot", "peer": "dash"}


def regret_figure(curves: pd.DataFrame, over: str, title: str) -> go.Figure:
    """Plot the median regret over `over` with the band between the quartiles; lower is better."""
    figure = new_figure(title)
    low = max(1e-4, float(curves["low"].min()))
    for sampler, rows in curves.groupby("sampler", sort=False):
        name = str(sampler)
        colour, x = _colour(name), rows[over].tolist()
        band = [*rows["high"].clip(lower=low), *rows["low"].clip(lower=low)[::-1]]
        figure.add_scatter(
            x=[*x, *x[::-1]], y=band, fill="toself", fillcolor=colour, opacity=0.07,
            line={"width": 0, "shape": "hv"}, hoverinfo="skip", showlegend=False, legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["median"].clip(lower=low).tolist(), mode="lines", legendgroup=name,
            name=_title(name),
            line={"color": colour, "width": 2, "dash": _dash(name), "shape": "hv"},
            hovertemplate=f"{_title(name)}: %{{y:.4f}} at %{{x:.0f}}<extra></extra>",
        )  # fmt: skip
    ticks = log_ticks(low, 1.0)
    figure.add_hline(y=0.01, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text=OVER_TITLES[over], rangemode="tozero")
    figure.update_yaxes(
        title_text="Hypervolume regret", type="log", tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
    )  # fmt: skip
    figure.update_layout(
        legend={"orientation": "v", "x": 1.01, "xanchor": "left", "y": 1, "yanchor": "top"}
    )
    return figure


def grouped(curves: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Group the curves by figure: all contenders, and `pareto` with its ablations."""
    ablations = curves["sampler"].map(lambda name: _family(name) == "ablation").astype(bool)
    groups = {"": curves[~ablations]}
    if ablations.any():
        groups["-ablation"] = curves[ablations | (curves["sampler"] == "pareto")]
    return {name: rows for name, rows in groups.items() if len(rows)}


def write_figures(figures: Mapping[str, go.Figure], folder: Path) -> list[Path]:
    """Write `NAME.html` and `NAME.png` for each figure; return the paths.

    Raises:
        UserError: No browser was found to draw the PNGs; the pages are written all the same.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = [folder / f"{name}.html" for name in figures]
    for page, figure in zip(pages, figures.values(), strict=True):
        figure.write_html(page, include_plotlyjs=True)
    try:
        return [*pages, *draw_pngs(figures, folder, width=1000, height=520, scale=2)]
    except UserError as error:
        raise UserError(f"{folder}: the pages are written; {error}") from None


def _family(sampler: str) -> str:
    """Return the family of a sampler; one that is not in `CONTENDERS` is a peer."""
    return CONTENDERS[sampler].family if sampler in CONTENDERS else "peer"


def _title(sampler: str) -> str:
    return CONTENDERS[sampler].title if sampler in CONTENDERS else sampler


def _dash(sampler: str) -> str:
    if sampler.endswith(("-stopping", "-at-once", "-extrapolating")):
        return "longdashdot"
    return DASHES[_family(sampler)]


def _colour(sampler: str) -> str:
    algorithm = sampler.removeprefix("optuna-").removesuffix("-group").removesuffix("-stopping")
    return ALGORITHM_COLOURS.get(sampler) or ALGORITHM_COLOURS.get(algorithm, BLUE)
