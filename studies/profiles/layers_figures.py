"""Figures of a profile: time by stage, the roofline, the traffic, and time against size.

Each takes a table of points. Those of the scatter plots have one row per layer: `series` (its
colour and legend), `intensity` (FLOPs per byte), `gflop_s`, `gb_s`, `chunk_bytes` (bytes moved per
launch), `time_ms` and `hover` (HTML).
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from profiling.layers import LayerTable, stage_path
from profiling.roofline import Peaks
from studies.pages.style import AMBER, BLUE, GREY, log_ticks, new_figure
from studies.profiles.layers_words import KIND_TITLES, records
from studies.record.formats import counted, format_bytes, format_ms, format_rate, format_shape

KIND_COLOURS: dict[str, str] = {
    "convolution": BLUE,
    "depthwise": "#56b4e9",
    "pointwise": "#009e73",
    "linear": "#8c7300",
    "batch_norm": AMBER,
    "activation": "#d55e00",
    "concatenation": "#b0438b",
    "resampling": GREY,
    "other": "#5f6b78",
}
"""Kind of operation -> colour: cool colours for arithmetic, warm ones for moving data."""

_SERIES = (BLUE, AMBER, "#009e73", "#b0438b", "#56b4e9", "#d55e00", "#8c7300", GREY)
_DASHES = ("solid", "dash", "dot")
_MOST_PIXELS = 26


def layer_points(table: LayerTable) -> pd.DataFrame:
    """Return the points of a layer table, one per layer that launches an operation."""
    return pd.DataFrame(
        [
            {
                "series": layer.cost.kind,
                "stage": stage_path(layer),
                "intensity": layer.cost.intensity,
                "gflop_s": layer.gflop_s,
                "gb_s": layer.gb_s,
                "chunk_bytes": layer.cost.bytes_moved / layer.cost.launches,
                "time_ms": layer.time_ms,
                "hover": _hover(
                    layer.cost.path or layer.cost.module,
                    f"{KIND_TITLES[layer.cost.kind]}, {format_shape(layer.cost.input_shape)} to "
                    f"{format_shape(layer.cost.output_shape)}",
                    _speed(layer.time_ms, layer.gflop_s, layer.gb_s),
                    f"{format_bytes(layer.cost.bytes_moved)} moved, bound by {layer.bound}",
                ),
            }
            for layer in table.layers
            if layer.cost.launches
        ]
    )


def sweep_points(sweep: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the points of a sweep, with a series for each combination of the axes in `by`."""
    points = sweep.assign(chunk_bytes=sweep["bytes_moved"] / sweep["launches"].clip(lower=1))
    names = [series_name(row, by) for row in records(sweep)]
    hovers = [
        _hover(
            f"{row['layer']}",
            f"input {format_shape(row['input_shape'])}, batch {row['batch']}, "
            f"{counted(row['threads'], 'thread')}",
            _speed(row["time_ms"], row["gflop_s"], row["gb_s"]),
            f"bound by {row['bound']}",
        )
        for row in records(sweep)
    ]
    return points.assign(series=names, hover=hovers)


def _speed(time_ms: float, gflop_s: float, gb_s: float) -> str:
    return f"{format_ms(time_ms)}, {format_rate(gflop_s)} GFLOP/s, {format_rate(gb_s)} GB/s"


def series_name(row: Mapping[str, Any], by: Sequence[str]) -> str:
    """Return the name of a sweep's line from its values on the axes `by`: `width 64, 2 threads`."""
    parts = [counted(row[a], "thread") if a == "threads" else f"{a} {row[a]}" for a in by]
    return ", ".join(parts) or "measured"


def stage_figure(points: pd.DataFrame) -> go.Figure:
    """Stack each stage's time by kind of operation; stages from first to last."""
    sums = points.pivot_table(
        index="stage", columns="series", values="time_ms", aggfunc="sum", sort=False
    )
    figure = new_figure("Time by stage and kind of operation")
    for kind in [kind for kind in KIND_TITLES if kind in sums]:
        times = sums[kind].dropna()
        figure.add_bar(
            x=times.tolist(), y=times.index.tolist(), orientation="h", name=KIND_TITLES[kind],
            marker={"color": KIND_COLOURS[kind], "line": {"width": 0}},
            hovertext=[
                _hover(str(at), f"{KIND_TITLES[kind]}: {format_ms(t)}") for at, t in times.items()
            ],
            hoverinfo="text",
        )  # fmt: skip
    rows = len(sums.index)
    figure.update_layout(barmode="stack", bargap=0.3, height=110 + 27 * rows)
    figure.update_xaxes(title_text="Time (ms)", rangemode="tozero")
    order = {"categoryorder": "array", "categoryarray": sums.index.tolist()}
    figure.update_yaxes(autorange="reversed", showgrid=False, **order)
    return _without_legend(figure)


def roofline_figure(points: pd.DataFrame, peaks: Mapping[str, Peaks]) -> go.Figure:
    """Plot achieved arithmetic against intensity under the measured roofs, one per key of `peaks`.

    Layers without arithmetic are not drawn; at least one layer must have some.
    """
    figure = new_figure("Roofline: arithmetic reached")
    working = points[points["gflop_s"] > 0]
    ridges = [peak.gemm_gflop_s / speed for peak in peaks.values() for _, speed in peak.copy_gb_s]
    x = _along([*working["intensity"], *ridges])
    lowest = float(working["gflop_s"].min())
    for dash, (name, peak) in zip(_DASHES * len(peaks), peaks.items(), strict=False):
        fastest = max(speed for _, speed in peak.copy_gb_s)
        for speed, what in ((peak.memory_gb_s, "memory"), (fastest, "cache")):
            rates = f"{format_rate(peak.gemm_gflop_s)} GFLOP/s, {what} {format_rate(speed)} GB/s"
            _roof(figure, x, np.minimum(peak.gemm_gflop_s, speed * x), dash, f"{name}: {rates}")
            lowest = min(lowest, speed * x[0])
            if len(peaks) == 1:
                _label(figure, x[0], speed * x[0], f"{what} {format_rate(speed)} GB/s", "left")
        roof = f"{format_rate(peak.gemm_gflop_s)} GFLOP/s, {name}"
        _label(figure, x[-1], peak.gemm_gflop_s, roof)
    _scatter(figure, working, "intensity", "gflop_s")
    tallest = max(peak.gemm_gflop_s for peak in peaks.values())
    figure.update_xaxes(title_text="Arithmetic intensity (FLOPs per byte moved)", **_log(x))
    figure.update_yaxes(title_text="GFLOP/s", **_log([lowest, 1.3 * tallest]))
    grouped = set(points["series"]) - set(KIND_TITLES)
    return _legend_above(figure) if grouped else _without_legend(figure)


def traffic_figure(points: pd.DataFrame, peaks: Mapping[str, Peaks]) -> go.Figure:
    """Plot achieved traffic against the bytes of one launch, under copy speeds and launch cost."""
    figure = new_figure("Traffic: bytes moved per second")
    moving = points[points["gb_s"] > 0]
    sizes = [float(moved) for peak in peaks.values() for moved, _ in peak.copy_gb_s]
    x = _along([*moving["chunk_bytes"], *sizes])
    for dash, (name, peak) in zip(_DASHES * len(peaks), peaks.items(), strict=False):
        copies = np.array([peak.copy_rate_gb_s(int(moved)) for moved in x])
        launch = x / peak.launch_us / 1e3
        rates = f"{name}: copying {format_rate(copies.max())} to {format_rate(copies.min())} GB/s"
        hover = f"{rates}, {peak.launch_us:.2g} us per launch"
        _roof(figure, x, np.minimum(copies, launch), dash, hover)
    _scatter(figure, moving, "chunk_bytes", "gb_s")
    ticks = log_ticks(x[0], x[-1])
    figure.update_xaxes(
        title_text="Bytes moved per launch", type="log",
        tickvals=ticks, ticktext=[_short_size(tick) for tick in ticks],
    )  # fmt: skip
    fastest = max(speed for peak in peaks.values() for _, speed in peak.copy_gb_s)
    figure.update_yaxes(title_text="GB/s", **_log([*moving["gb_s"], fastest]))
    grouped = set(points["series"]) - set(KIND_TITLES)
    return _legend_above(figure) if grouped else _without_legend(figure)


def sweep_figure(points: pd.DataFrame, x: str) -> go.Figure:
    """Plot time against one axis of a sweep: a line per series, with 95 % intervals."""
    figure = new_figure(f"Time against {x}")
    lines = points.sort_values(x, kind="stable").groupby("series", sort=False)
    for colour, (name, rows) in zip(_palette(points), lines, strict=True):
        spread = {
            "type": "data",
            "array": (rows["high_ms"] - rows["time_ms"]).tolist(),
            "arrayminus": (rows["time_ms"] - rows["low_ms"]).tolist(),
            "thickness": 1.2,
        }
        figure.add_scatter(
            x=rows[x].tolist(), y=rows["time_ms"].tolist(), name=name, mode="lines+markers",
            error_y=spread, line={"color": colour, "width": 2}, marker={"color": colour, "size": 7},
            hovertext=rows["hover"].tolist(), hoverinfo="text",
        )  # fmt: skip
    values = sorted(points[x].unique().tolist())
    ends = {"tickvals": values, "ticktext": [str(value) for value in values]}
    figure.update_xaxes(
        title_text=x.capitalize(), type="log" if min(values) > 0 else "linear", **ends
    )
    figure.update_yaxes(title_text="Time (ms)", **_log([*points["low_ms"], *points["high_ms"]]))
    return _legend_above(figure)


def _scatter(figure: go.Figure, points: pd.DataFrame, x: str, y: str) -> None:
    """Add the points, coloured by series, their areas in proportion to their time."""
    palette = dict(zip(points["series"].unique(), _palette(points), strict=False))
    largest = float(points["time_ms"].max())
    known = [kind for kind in KIND_TITLES if kind in palette]
    for name in known or palette:
        rows = points[points["series"] == name]
        figure.add_scatter(
            x=rows[x].tolist(), y=rows[y].tolist(),
            name=KIND_TITLES.get(name, name), mode="markers",
            marker={
                "color": KIND_COLOURS.get(name, palette[name]), "opacity": 0.72,
                "size": rows["time_ms"].tolist(), "sizemode": "area", "sizemin": 3,
                "sizeref": 2 * largest / _MOST_PIXELS**2,
                "line": {"width": 0.6, "color": "#ffffff"},
            },
            hovertext=rows["hover"].tolist(), hoverinfo="text",
        )  # fmt: skip


def _palette(points: pd.DataFrame) -> list[str]:
    names = len(points["series"].unique())
    return [_SERIES[i % len(_SERIES)] for i in range(names)]


def _roof(
    figure: go.Figure, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], dash: str, hover: str
) -> None:
    figure.add_scatter(
        x=x.tolist(), y=y.tolist(), mode="lines", showlegend=False, name="roof",
        line={"color": GREY, "width": 1.6, "dash": dash}, hovertext=hover, hoverinfo="text",
    )  # fmt: skip


def _label(figure: go.Figure, x: float, y: float, text: str, side: str = "right") -> None:
    """Label a roof near one of its ends; positions on logarithmic axes are exponents."""
    inside = 1.02 if side == "left" else 1 / 1.02  # exactly at the end a label may count as outside
    place = {"x": math.log10(x * inside), "y": math.log10(y), "xanchor": side, "yanchor": "bottom"}
    figure.add_annotation(text=text, showarrow=False, font={"size": 11}, **place)


def _along(values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return enough positions on a logarithmic axis around `values` to draw a bent line."""
    return np.geomspace(min(values) / 1.6, max(values) * 1.6, 120)


def _log(values: Sequence[float] | npt.NDArray[np.float64] | pd.Series[float]) -> dict[str, Any]:
    ticks = log_ticks(float(min(values)), float(max(values)))
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _legend_above(figure: go.Figure) -> go.Figure:
    place = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"}
    look = {"itemsizing": "constant", "traceorder": "normal"}
    return figure.update_layout(legend={**place, **look})


def _without_legend(figure: go.Figure) -> go.Figure:
    """Hide the legend: the page has one for all figures coloured by kind, which fits a phone."""
    return figure.update_layout(showlegend=False, margin={"t": 52})


def _short_size(nbytes: float) -> str:
    """Return a round number of bytes as text: `100 kB`."""
    value, unit = format_bytes(nbytes).split()
    return f"{float(value):g} {unit}"


def _hover(title: str, *lines: str) -> str:
    return "<br>".join([f"<b>{html.escape(title)}</b>", *map(html.escape, lines)])
