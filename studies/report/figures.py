"""Draw the report's figures from their tables.

These functions compute nothing that a table could hold. A trace holds the names of its points'
trials in `meta`; the page looks up the tooltips by these names.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from nas.objectives import Objective
from studies.pages.style import (
    BLUE,
    FADED,
    GREY,
    INK,
    MARKS,
    UNLEARNED,
    along,
    axis,
    draw_floors,
    layers,
    marks_in,
    new_figure,
    reference_marks,
)
from studies.record.axis_effects import format_effect
from studies.record.formats import axis_label, noun
from studies.report.figure_tables import hypervolume_steps, staircase
from studies.report.labels import label_places

_FEW_EPOCHS = 10
_AXES_WITH_EFFECTS = 8
_CELLS: dict[str, Any] = {
    "texttemplate": "%{text}",
    "textfont": {"color": INK},
    "xgap": 2,
    "ygap": 2,
    "showscale": False,
}
_CROWD, _MANY = 60, 1000
"""Numbers of members of the front and of all points above which symbols become smaller."""
_NAMED = 8
"""Largest front whose members are labelled with their names."""


def pair_figure(
    points: pd.DataFrame,
    x: Objective,
    y: Objective,
    floors: Mapping[str, Mapping[str, float]] | None = None,
) -> go.Figure:
    """Plot objective `y` against objective `x`; the titles of axes say where higher is better.

    Args:
        points: As `points_table` returns it.
        x: The horizontal objective.
        y: The vertical objective.
        floors: Values that are drawn as lines, by objective and label.
    """
    figure = new_figure(f"{y.title} against {noun(x)}")
    stairs = staircase(points, x.name, y.name)
    line = {"color": BLUE, "width": 1, "shape": "hv", "dash": "dot"}
    figure.add_scatter(
        x=stairs[x.name].tolist(), y=stairs[y.name].tolist(), mode="lines", line=line,
        hoverinfo="skip", showlegend=False, opacity=0.6,
    )  # fmt: skip
    add_points(figure, points, x, y)
    figure.update_xaxes(title_text=axis_label(x), **axis(x, points[x.name]))
    figure.update_yaxes(title_text=axis_label(y), **axis(y, points[y.name]))
    for letter, objective in (("x", x), ("y", y)):
        draw_floors(figure, (floors or {}).get(objective.name, {}), letter)
    return figure


def add_points(figure: go.Figure, points: pd.DataFrame, x: Objective, y: Objective) -> None:
    """Draw the points of two quantities: dominated ones first, references last and largest.

    Args:
        figure: The figure to draw in.
        points: Columns `name`, `kind`, `front`, `contended`, and those of `x` and `y` with their
            intervals, as `points_table` returns them.
        x: Quantity of the horizontal axis.
        y: Quantity of the vertical axis.
    """
    labels = _label_positions(points, x, y)
    for label, kind, rows in layers(points):
        figure.add_scatter(
            x=rows[x.name].tolist(),
            y=rows[y.name].tolist(),
            name=label,
            meta=rows["name"].tolist(),
            hoverinfo="text",
            **_marker(kind, label, points),
            **_names(kind, rows, points, labels),
            **({} if kind in FADED else _error_bars(rows, x.name, y.name, _colour(kind, points))),
        )


def hypervolume_figure(table: pd.DataFrame, x: str, start: float | None) -> go.Figure:
    """Plot the hypervolume over `trial` or `training_s` (higher is better).

    Args:
        table: As `hypervolume_table` returns it.
        x: `trial` or `training_s`.
        start: Hypervolume of the references alone, drawn as a dashed line.
    """
    over = {"trial": "Trials", "training_s": "Training time"}[x]
    table = hypervolume_steps(table)
    values, unit = table[x], ""
    if x == "training_s":
        unit, size = _time_unit(float(values.max()) if len(values) else 0.0)
        values = values / size
    figure = new_figure(f"Hypervolume over {over.lower()}")
    figure.add_scatter(
        x=values.tolist(), y=table["hypervolume"].tolist(), mode="lines", name="all trials",
        line={"color": BLUE, "width": 2.5, "shape": "hv"}, hovertext=table["name"].tolist(),
        hovertemplate="%{hovertext}<br>hypervolume %{y:.4f}<extra></extra>",
    )  # fmt: skip
    if start is not None and len(table):
        ends = [float(values.min()), float(values.max())]
        figure.add_scatter(
            x=ends, y=[start, start], mode="lines", name="references alone", hoverinfo="name",
            line={"color": MARKS["original"].colour, "width": 1.5, "dash": "dash"},
        )  # fmt: skip
    figure.update_xaxes(title_text=f"{over} ({unit})" if unit else over, rangemode="tozero")
    figure.update_yaxes(title_text="Hypervolume", rangemode="tozero")
    return figure


def importance_figure(table: pd.DataFrame, objectives: tuple[Objective, ...]) -> go.Figure:
    """Draw the share of each objective's variance that each axis explains, as a heat map."""
    table = table.iloc[:14][::-1]
    titles = {objective.name: objective.title.replace(" ", "<br>") for objective in objectives}
    values = table.to_numpy()
    figure = new_figure("Importance of each axis")
    figure.add_heatmap(
        z=values.tolist(),
        x=[titles[name] for name in table.columns],
        y=[str(axis).replace("_", " ") for axis in table.index],
        text=[[f"{100 * value:.0f} %" for value in row] for row in values],
        hovertemplate="%{y}: %{z:.1%}<extra></extra>",
        colorscale=[[0, "rgba(0, 114, 178, 0.04)"], [1, "rgba(0, 114, 178, 0.6)"]],
        zmin=0,
        zmax=max(0.5, float(values.max())),
        **_CELLS,
    )
    return _as_table(figure, 30 * len(table))


def effect_figure(table: pd.DataFrame, objectives: tuple[Objective, ...]) -> go.Figure:
    """Draw the effects of the most important axes' choices on each objective, as a heat map."""
    axes = list(dict.fromkeys(table["axis"]))[:_AXES_WITH_EFFECTS]
    table = table[table["axis"].isin(axes)][::-1]
    shown = [objective for objective in objectives if objective.name in table]
    text = [
        [format_effect(row, objective.name) for objective in shown]
        for row in table.to_dict("records")
    ]
    colours, most = _effect_colours(table, shown)
    figure = new_figure("Effect of each choice")
    figure.add_heatmap(
        z=colours.tolist(),
        x=[objective.title.replace(" ", "<br>") for objective in shown],
        y=[
            f"{axis.replace('_', ' ')}: {choice}"
            for axis, choice in zip(table["axis"], table["choice"], strict=True)
        ],
        text=text,
        hovertemplate="%{y}: %{text}<extra></extra>",
        colorscale=[
            [0, "rgba(0, 114, 178, 0.6)"],
            [0.5, "rgba(255, 255, 255, 0)"],
            [1, "rgba(213, 94, 0, 0.6)"],
        ],
        zmin=-most,
        zmax=most,
        **_CELLS,
    )
    return _as_table(figure, 26 * len(table))


def _effect_colours(
    table: pd.DataFrame, objectives: list[Objective]
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the colour of each cell and the largest one; below 0 is better.

    Factors are coloured by their logarithms. Differences have their own range in each column.
    """
    values = table[[objective.name for objective in objectives]].to_numpy(dtype=np.float64)
    by_factor = np.array([objective.by_factor for objective in objectives])
    logs = np.log(values[:, by_factor])
    most = max(0.2, float(np.nanmax(np.abs(logs), initial=0.0)))
    changes = values[:, ~by_factor]
    largest = np.nanmax(np.abs(changes), axis=0, initial=1e-12)
    colours = np.empty_like(values)
    colours[:, by_factor], colours[:, ~by_factor] = logs, changes / largest * most
    return colours * [objective.sign for objective in objectives], most


def _as_table(figure: go.Figure, rows_height: int) -> go.Figure:
    """Lay out a heat map as a table: column titles above, lines only between the cells."""
    figure.update_xaxes(side="top", showgrid=False, showline=False, ticks="")
    figure.update_yaxes(showgrid=False, showline=False, ticks="", automargin=True)
    figure.update_layout(margin={"t": 104, "b": 12}, height=90 + rows_height)
    return figure


def curve_figure(
    table: pd.DataFrame,
    objective: Objective | None = None,
    floors: Mapping[str, float] | None = None,
) -> go.Figure:
    """Plot the total loss, or an objective, over the epochs.

    Solid lines are values on the validation images, dotted lines the references' training losses.

    Args:
        table: As `curve_table` returns it.
        objective: That of the table's column `objective`; None plots the total loss.
        floors: Values that are drawn as dashed lines, by label.
    """
    title = objective.title if objective else "Total loss"
    shown = "objective" if objective else "validation_loss"
    figure = new_figure(f"{title} during training")
    names = list(dict.fromkeys(table.loc[table["kind"] != "front", "kind"]))
    # A single epoch has no line, so draw points; many points would hide the line.
    few = table["epoch"].max() <= _FEW_EPOCHS
    mode = "lines+markers" if few else "lines"
    marks = reference_marks(names)
    for name, rows in table.groupby("name", sort=False):
        mark = marks.get(str(rows["kind"].iloc[0]))
        line = {"color": mark.colour if mark else BLUE, "width": 2.5 if mark else 1.25}
        shared = {"x": rows["epoch"].tolist(), "name": str(name), "mode": mode,
                  "marker": {"size": 5}}  # fmt: skip
        template = f"{name}, epoch %{{x}}: %{{y:.4f}}<extra></extra>"
        figure.add_scatter(
            y=rows[shown].tolist(), line=line, opacity=1 if mark else 0.45,
            hovertemplate=template, showlegend=mark is not None, **shared,
        )  # fmt: skip
        if mark and objective is None:
            figure.add_scatter(
                y=rows["train_loss"].tolist(), line={**line, "width": 1.5, "dash": "dot"},
                hovertemplate=f"training: {template}", showlegend=False, **shared,
            )  # fmt: skip
    ticks = {"tickvals": sorted(set(table["epoch"].tolist()))} if few else {}
    figure.update_xaxes(title_text="Epoch", tickformat="d", **ticks)
    figure.update_yaxes(title_text=axis_label(objective) if objective else title)
    draw_floors(figure, floors or {})
    return figure


def _marker(kind: str, label: str, points: pd.DataFrame) -> dict[str, Any]:
    if kind in FADED:
        size = 6 if len(points) <= _MANY else 4
        cross = {"symbol": "x-thin-open", "opacity": 0.8, "line": {"width": 1.5}}
        look = cross if kind == UNLEARNED else {"opacity": 0.4}
        return {"marker": {"color": GREY, "size": size, **look}}
    if kind == "front":
        # A hollow symbol means that the latency was measured on a busy machine.
        fill = BLUE if label == kind else "#ffffff"
        crowd = int(points["front"].sum())
        size, width = (10, 2) if crowd <= _CROWD else (7, 1.5) if crowd <= 4 * _CROWD else (5, 1)
        return {"marker": {"color": fill, "size": size, "line": {"width": width, "color": BLUE}}}
    mark = marks_in(points)[kind]
    outline = {"width": 1.5, "color": "#ffffff"}
    return {"marker": {"color": mark.colour, "size": 15, "symbol": mark.symbol, "line": outline}}


def _names(
    kind: str, rows: pd.DataFrame, points: pd.DataFrame, places: dict[str, str]
) -> dict[str, Any]:
    """Return the labels of a trace's points, if `places` holds a position for each of them."""
    names = [str(name) for name in rows["name"]]
    if not places.keys() >= set(names):
        return {"mode": "markers"}
    text = [html.escape(name) for name in names]
    small = kind == "front"
    return {
        "mode": "markers+text",
        "text": text if small else [f"<b>{name}</b>" for name in text],
        "textposition": [places[name] for name in names],
        "textfont": {
            "color": _colour(kind, points), "size": 11 if small else 13, "shadow": "auto"
        },
    }  # fmt: skip


def _label_positions(points: pd.DataFrame, x: Objective, y: Objective) -> dict[str, str]:
    """Choose the label positions of the references and of a small front, to hide few points.

    Returns:
        Plotly's text position for the name of each labelled point.
    """
    drawn = _with_bars(points, x.name, y.name)
    shares = np.column_stack([along(o, drawn[o.name]) for o in (x, y)])
    rows = np.flatnonzero(points["kind"].isin(list(marks_in(points))))
    front = np.flatnonzero(points["kind"] == "front")
    if len(front) <= _NAMED:
        rows = np.concatenate([rows, front])
    names = [str(name) for name in points["name"].iloc[rows]]
    places = label_places(shares, shares[rows], [len(name) for name in names])
    return dict(zip(names, places, strict=True))


def _with_bars(points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Append points along the error bars, so that labels avoid the bars too."""
    rows = points[~points["kind"].isin(FADED)]
    bars = [
        rows.assign(**{name: rows[f"{name}_low"] * (1 - share) + rows[f"{name}_high"] * share})
        for name in (x, y)
        for share in np.linspace(0, 1, 9)
    ]
    return pd.concat([points, *(bar.dropna(subset=[x, y]) for bar in bars)])


def _colour(kind: str, points: pd.DataFrame) -> str:
    return BLUE if kind == "front" else marks_in(points)[kind].colour


def _error_bars(rows: pd.DataFrame, x: str, y: str, colour: str) -> dict[str, Any]:
    bars = {}
    for letter, name in (("x", x), ("y", y)):
        above, below = rows[f"{name}_high"] - rows[name], rows[name] - rows[f"{name}_low"]
        if above.notna().any():
            bars[f"error_{letter}"] = {
                "array": above.fillna(0).clip(lower=0).tolist(),
                "arrayminus": below.fillna(0).clip(lower=0).tolist(),
                "symmetric": False, "thickness": 1, "width": 0, "color": colour,
            }  # fmt: skip
    return bars


def _time_unit(seconds: float) -> tuple[str, float]:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return unit, size
    return "s", 1.0
