"""Pages of `nas profile`: one HTML file for a model's layers, one for a layer's sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.pages.page import Panel, embedded, render, write_page
from studies.profiles.layers_figures import (
    KIND_COLOURS,
    layer_points,
    roofline_figure,
    stage_figure,
    sweep_figure,
    sweep_points,
    traffic_figure,
)
from studies.profiles.layers_words import (
    KIND_TITLES,
    VIEWS,
    account,
    environment_facts,
    facts,
    headline,
    layer_rows,
    peak_facts,
    records,
    sweep_headline,
    view,
    warnings,
)
from studies.record.formats import counted, format_percent

if TYPE_CHECKING:
    import pandas as pd

    from profiling.layers import LayerTable
    from profiling.roofline import Peaks

_TRAFFIC_CAPTION = (
    "The line is the speed at which this machine copies as many bytes, including the start of an "
    "operation. Above the line, the data were still in a cache; far below it, the time went to "
    "arithmetic, exponentials or the start of small kernels."
)
_SWEEP_CAPTION = "Medians with 95 % intervals, both axes logarithmic."
_KINDS = {"kinds": KIND_TITLES, "colours": KIND_COLOURS}


def write_profile(table: LayerTable, name: str, path: Path, summary: str = "") -> Path:
    """Write a model's layer table as one self-contained page and return its path.

    Args:
        table: The measurements.
        name: Name of the model.
        path: Path of the page; its folders are created.
        summary: A description of the model in one line.

    Raises:
        UserError: The file cannot be written.
    """
    points, peaks = layer_points(table), {table.latency.subject.threads: table.peaks}
    panels = _scatter_panels(points, peaks) | {"stages": Panel("stages", stage_figure(points), "")}
    context = {
        **_KINDS,
        "name": name,
        "summary": summary,
        "headline": headline(table, name),
        "account": account(table),
        "warnings": warnings(table),
        "facts": facts(table),
        "views": [(title, by, view(table, by)) for by, title in VIEWS.items()],
        "layers": layer_rows(table),
        "uncounted": dict(table.complexity.uncounted_ops),
        "panels": {key: embedded(panel) for key, panel in panels.items()},
        **_machine(peaks),
    }
    return write_page(path, render("profile.html", context), "profile")


def write_sweep(
    sweep: pd.DataFrame,
    title: str,
    axes: Sequence[str],
    peaks: Mapping[int, Peaks],
    path: Path,
) -> Path:
    """Write a layer's sweep as one self-contained page and return its path.

    Args:
        sweep: The table that `profiling.sweep.layer_sweep` returns.
        title: Description of the layer.
        axes: The axes of the sweep, the horizontal axis first; none for a single measurement.
        peaks: Number of threads -> peaks of this machine, for each number in the sweep.
        path: Path of the page; its folders are created.

    Raises:
        UserError: The file cannot be written.
    """
    points = sweep_points(sweep, axes[1:])
    panels = _scatter_panels(points, peaks)
    if axes:
        panels["time"] = Panel("time", sweep_figure(points, axes[0]), _SWEEP_CAPTION)
    context = {
        **_KINDS,
        "title": title,
        "headline": sweep_headline(sweep, title, axes),
        "axes": axes,
        "rows": records(sweep),
        "contended": bool(sweep["contended"].any()),
        "panels": {key: embedded(panel) for key, panel in panels.items()},
        **_machine(peaks),
    }
    return write_page(path, render("sweep.html", context), "page")


def _scatter_panels(points: pd.DataFrame, peaks: Mapping[int, Peaks]) -> dict[str, Panel]:
    roofs = {counted(threads, "thread"): found for threads, found in peaks.items()}
    roofline = roofline_figure(points, roofs) if (points["gflop_s"] > 0).any() else None
    return {
        "roofline": Panel("roofline", roofline, _roofline_caption(points)),
        "traffic": Panel("traffic", traffic_figure(points, roofs), _TRAFFIC_CAPTION),
    }


def _roofline_caption(points: pd.DataFrame) -> str:
    idle = points[points["gflop_s"] == 0]
    if len(idle) == len(points):
        return "No layer does arithmetic that is counted: see the traffic."
    left = ""
    if len(idle):
        share = idle["time_ms"].sum() / points["time_ms"].sum()
        left = (
            f" The {counted(len(idle), 'layer')} without arithmetic, {format_percent(share)} of "
            "the time, are not drawn here: see the traffic."
        )
    return "A point's area is its time; the lines are the peaks measured on this machine." + left


def _machine(peaks: Mapping[int, Peaks]) -> dict[str, Any]:
    first = next(iter(peaks.values()))
    return {
        "peaks": [(counted(threads, "thread"), peak_facts(p)) for threads, p in peaks.items()],
        "environment": environment_facts(first.environment),
    }
