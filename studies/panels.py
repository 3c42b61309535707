"""The figures of a study's report: which are drawn, in what order, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from studies.figure_tables import (
    MINIMUM_TRIALS,
    curve_table,
    hypervolume_table,
    importance_table,
    points_table,
    reference_hypervolume,
)
from studies.figures import curve_figure, hypervolume_figure, importance_figure, pair_figure
from studies.overviews import cube_figure, parallel_figure
from studies.records import StudyRecord
from studies.tables import needs

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


_NOTHING = "No architecture was fully evaluated, so there is nothing to draw."


@dataclass(frozen=True)
class Panel:
    """One figure and its file name; `figure` is None where there is too little to draw."""

    key: str
    figure: go.Figure | None
    caption: str


def panels(study: StudyRecord) -> dict[str, list[Panel]]:
    """Return the figures by section of the report."""
    points = points_table(study)
    return {
        "trade_offs": _pairs(study, points),
        "cube": [_cube(study, points)],
        "parallel": [_parallel(study, points)],
        "hypervolume": _hypervolumes(study),
        "importance": [_importance(study)],
        "curves": [_curves(study)],
    }


def _pairs(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Every pair once, the quality (first objective) upright wherever it takes part."""
    if points.empty:
        return [Panel("pairs", None, _NOTHING)]
    return [
        Panel(f"{y.name}-over-{x.name}", pair_figure(points, x, y), "")
        for y, x in combinations(study.objectives, 2)
    ]


def _cube(study: StudyRecord, points: pd.DataFrame) -> Panel:
    if points.empty:
        return Panel("space", None, _NOTHING)
    if len(study.objectives) < 3:
        return Panel("space", None, "A view in space needs three objectives.")
    return Panel(
        "space",
        cube_figure(points, study.objectives),
        "The corner with the smallest values is best. Blue is the best of the colour's objective, "
        "amber the worst; large points are the front. Drag to turn, scroll to zoom.",
    )


def _parallel(study: StudyRecord, points: pd.DataFrame) -> Panel:
    return Panel(
        "parallel",
        parallel_figure(points, study.objectives) if len(points) else None,
        "One line per architecture, references thick. On the objectives' axes lower is better; the "
        "other axes show which shapes lead there."
        if len(points)
        else _NOTHING,
    )


def _hypervolumes(study: StudyRecord) -> list[Panel]:
    table, start = hypervolume_table(study), reference_hypervolume(study)
    axes = {"hypervolume-trials": "trial", "hypervolume-time": "training_s"}
    if not study.complete:
        return [Panel("hypervolume-trials", None, _NOTHING)]
    if not needs(study, "training"):
        del axes["hypervolume-time"]
    return [Panel(key, hypervolume_figure(table, x, start), "") for key, x in axes.items()]


def _importance(study: StudyRecord) -> Panel:
    table = importance_table(study)
    if table.empty:
        few = f"Not enough trials yet: this figure needs {MINIMUM_TRIALS} searched architectures."
        return Panel("importance", None, few)
    return Panel(
        "importance",
        importance_figure(table, study.objectives),
        "The share of an objective's variance (of its logarithm) that one axis explains by itself, "
        "less what chance would explain. Effects of axes acting together are not counted, and a "
        "search that favours some values blurs the picture: read it as a hint, not as a proof. An "
        "axis that only some architectures have is judged among those.",
    )


def _curves(study: StudyRecord) -> Panel:
    table = curve_table(study)
    if table.empty:
        return Panel("curves", None, "No training history was recorded.")
    return Panel(
        "curves",
        curve_figure(table),
        "Lower is better. Thick lines are the references (dotted: on their training images), thin "
        "blue ones the front; all are validation losses, with the KL term included.",
    )
