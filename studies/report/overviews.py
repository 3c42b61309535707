"""Figures of all objectives at once: a scatter plot in three dimensions, parallel coordinates."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from nas.objectives import Objective
from studies.pages.style import (
    AMBER,
    BLUE,
    FADED,
    GREY,
    along,
    axis,
    layers,
    log_ticks,
    marks_in,
    new_figure,
    spans_a_decade,
)
from studies.record.formats import axis_label, format_axis
from studies.record.tables import spread
from studies.report.figure_tables import SHAPE_AXES

SCALE = ((0.0, BLUE), (0.5, "#c9ced4"), (1.0, AMBER))
"""Colours from the best value to the worst."""
FADED_LINES = 300
"""Maximum number of dominated architectures in the parallel coordinates."""


def cube_figure(points: pd.DataFrame, objectives: tuple[Objective, ...]) -> go.Figure:
    """Plot three objectives in space; colour shows the fourth, or else the third.

    `customdata` holds the values of all objectives in order, and `layout.meta.axes` their axes, so
    that the page can swap the axes.
    """
    x, y, z = objectives[:3]
    colour = objectives[3] if len(objectives) > 3 else z
    names = [objective.name for objective in objectives]
    figure = new_figure("Three objectives in space")
    for label, kind, rows in layers(points):
        marker = _cube_marker(kind, rows, points, colour)
        figure.add_scatter3d(
            x=rows[x.name].tolist(), y=rows[y.name].tolist(), z=rows[z.name].tolist(),
            name=label, meta=rows["name"].tolist(), hoverinfo="text",
            customdata=rows[names].to_numpy().tolist(), **marker,
        )  # fmt: skip
    axes = [
        {"title": {"text": axis_label(o)}, **axis(o, points[o.name]), "short": o.title,
         "reversed": o.direction == "maximise"}
        for o in objectives
    ]  # fmt: skip
    private = ("short", "reversed")
    scene = {
        f"{letter}axis": {k: v for k, v in axes[names.index(o.name)].items() if k not in private}
        for letter, o in zip("xyz", (x, y, z), strict=True)
    }
    camera = {"eye": {"x": 1.35, "y": 1.35, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.2}}
    figure.update_layout(
        scene={**scene, "camera": camera, "aspectmode": "cube"},
        coloraxis=_colour_axis(colour, points[colour.name]),
        showlegend=False,
        meta={"axes": axes, "shown": [names.index(o.name) for o in (x, y, z, colour)]},
        margin={"l": 0, "r": 0, "t": 44, "b": 0},
    )
    return figure


def parallel_figure(
    points: pd.DataFrame,
    objectives: tuple[Objective, ...],
    floors: Mapping[str, Mapping[str, float]] | None = None,
) -> go.Figure:
    """Draw each architecture as a line through its objectives and the axes of its shape.

    On the axes of objectives the best value is at the bottom.

    Args:
        points: As `points_table` returns it.
        objectives: The study's objectives.
        floors: Values that are marked on the axes, by objective and label.
    """
    columns = [o.name for o in objectives] + [a for a in SHAPE_AXES if points[a].nunique() > 1]
    heights = pd.DataFrame({name: _height(name, points, objectives) for name in columns})
    figure = new_figure("Every objective and the shape of the network")
    for label, kind, rows in layers(points):
        indices = spread(list(rows.index), FADED_LINES) if kind in FADED else rows.index
        figure.add_scatter(**_lines(label, kind, points, heights.loc[indices]))
    ticks = [
        _tick(position, height, text)
        for position, name in enumerate(columns)
        for height, text in _ticks(name, points, objectives)
    ]
    ticks += [
        {**_tick(columns.index(name), height, f"- {label}"), "xanchor": "left", "xshift": 1}
        for name, lines in (floors or {}).items()
        for label, height in _floor_heights(points[name], lines).items()
    ]
    verticals = [_vertical(position) for position in range(len(columns))]
    figure.update_layout(annotations=ticks, shapes=verticals)
    titles = {objective.name: axis_label(objective) for objective in objectives}
    figure.update_xaxes(
        side="top", tickvals=list(range(len(columns))), showgrid=False, showline=False,
        ticktext=[_in_two_lines(titles.get(name, name)) for name in columns],
        range=[-0.45, len(columns) - 0.8],
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.04, 1.04])
    figure.update_layout(margin={"l": 10, "r": 10, "t": 112, "b": 10}, showlegend=False)
    return figure


def _in_two_lines(title: str) -> str:
    """Break a title before what its comma separates, or else after its first word."""
    return title.replace(", ", "<br>") if ", " in title else title.replace(" ", "<br>", 1)


def _vertical(position: int) -> dict[str, Any]:
    line = {"color": GREY, "width": 1}
    place = {"x0": position, "x1": position, "y0": 0, "y1": 1, "yref": "y domain"}
    return {"type": "line", "layer": "below", "line": line, **place}


def _tick(position: int, height: float, text: str) -> dict[str, Any]:
    return {
        "x": position, "y": height, "text": text, "showarrow": False, "xanchor": "right",
        "xshift": -7, "font": {"size": 10}, "bgcolor": "#ffffff", "opacity": 0.85, "borderpad": 0,
    }  # fmt: skip


def _cube_marker(
    kind: str, rows: pd.DataFrame, points: pd.DataFrame, colour: Objective
) -> dict[str, Any]:
    if kind in (*FADED, "front"):
        size, opacity = (3, 0.35) if kind in FADED else (6, 1)
        marker = {"size": size, "opacity": opacity, "coloraxis": "coloraxis", "line": {"width": 0}}
        return {"mode": "markers", "marker": {**marker, "color": _coloured(colour, rows, points)}}
    mark = marks_in(points)[kind]
    return {
        "mode": "markers+text", "text": [html.escape(kind)],
        "textfont": {"color": mark.colour, "size": 13}, "textposition": "top center",
        "marker": {"size": 9, "color": mark.colour, "symbol": mark.symbol},
    }  # fmt: skip


def _coloured(colour: Objective, rows: pd.DataFrame, points: pd.DataFrame) -> list[float]:
    values = rows[colour.name]
    return (np.log10(values) if spans_a_decade(colour, points[colour.name]) else values).tolist()


def _colour_axis(objective: Objective, values: pd.Series[float]) -> dict[str, Any]:
    bar: dict[str, Any] = {"title": {"text": objective.title, "side": "right"}}
    low, high = float(values.min()), float(values.max())
    if spans_a_decade(objective, values):
        ticks = log_ticks(low, high)
        bar["tickvals"] = [math.log10(tick) for tick in ticks]
        bar["ticktext"] = [format_axis(objective, tick) for tick in ticks]
        low, high = math.log10(low), math.log10(high)
    best_high = objective.direction == "maximise"
    return {"colorscale": SCALE, "cmin": low, "cmax": high, "reversescale": best_high,
            "colorbar": {**bar, "thickness": 10, "len": 0.7, "outlinewidth": 0}}  # fmt: skip


def _lines(label: str, kind: str, points: pd.DataFrame, heights: pd.DataFrame) -> dict[str, Any]:
    """Return one trace with all lines of a kind and a gap after each line."""
    width = len(heights.columns)
    gapped = np.column_stack([heights.to_numpy(), np.full(len(heights), np.nan)])
    mark = marks_in(points).get(kind)
    faded = kind in FADED
    colour = mark.colour if mark else GREY if faded else BLUE
    marker = {"symbol": mark.symbol if mark else "circle", "size": 9 if mark else 4}
    return {
        "x": [*range(width), None] * len(heights),
        "y": [None if math.isnan(value) else round(value, 4) for value in gapped.ravel()],
        "meta": [name for name in points.loc[heights.index, "name"] for _ in range(width + 1)],
        "name": label,
        "mode": "lines" if faded else "lines+markers",
        "line": {"color": colour, "width": 3 if mark else 1},
        "marker": marker,
        "opacity": 1 if mark else 0.3 if faded else _clear(len(heights)),
        "hoverinfo": "skip" if faded else "text",
    }


def _floor_heights(values: pd.Series[float], lines: Mapping[str, float]) -> dict[str, float]:
    """Return where floors lie on an axis of losses, from 0 to 1; those beyond it are left out."""
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-12)
    heights = {label: (value - low) / span for label, value in lines.items()}
    return {label: height for label, height in heights.items() if -0.03 <= height <= 1.03}


def _clear(lines: int) -> float:
    """Return the opacity of the front's lines; it falls with their number."""
    return max(0.2, min(0.65, 40 / max(lines, 1)))


def _height(name: str, points: pd.DataFrame, objectives: tuple[Objective, ...]) -> pd.Series[float]:
    """Return where each point crosses an axis, from 0 to 1; equal values share a place."""
    named = {objective.name: objective for objective in objectives}
    if name in named:
        height = along(named[name], points[name])
        height = height if named[name].direction == "minimise" else 1 - height
        return pd.Series(height, index=points.index)
    # Shapes take few values, which often double: equal steps keep them apart.
    values = points[name]
    return (values.rank(method="dense") - 1) / (values.nunique() - 1)


def _ticks(
    name: str, points: pd.DataFrame, objectives: tuple[Objective, ...]
) -> list[tuple[float, str]]:
    named = {objective.name: objective for objective in objectives}
    if name not in named:
        values = sorted(set(points[name]))
        shown = spread(values, 10)
        return [(values.index(value) / (len(values) - 1), f"{value:g}") for value in shown]
    low, high = float(points[name].min()), float(points[name].max())
    if low == high:
        return [(0.0, format_axis(named[name], low))]
    if spans_a_decade(named[name], points[name]):
        ticks = log_ticks(low, high)
        span = math.log(high / low)
        places = [math.log(tick / low) / span for tick in ticks]
    else:
        step = 10 ** math.floor(math.log10(high - low))
        step *= 0.5 if (high - low) / step < 4 else 1
        ticks = [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
        places = [(tick - low) / (high - low) for tick in ticks]
    if named[name].direction == "maximise":
        places = [1 - place for place in places]
    labelled = zip(places, (format_axis(named[name], tick) for tick in ticks), strict=True)
    return [(place, text) for place, text in labelled if -0.03 <= place <= 1.03]
