"""The figures of a study's report: which are drawn, in what order, and how to read them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from studies.pages.page import Panel
from studies.record.axis_effects import effect_table, importance_table
from studies.record.records import StudyRecord
from studies.record.tables import needs
from studies.report.figure_tables import (
    curve_table,
    hypervolume_table,
    points_table,
    reference_hypervolume,
)
from studies.report.figures import (
    curve_figure,
    effect_figure,
    hypervolume_figure,
    importance_figure,
    pair_figure,
)
from studies.report.overviews import FADED_LINES, cube_figure, parallel_figure

if TYPE_CHECKING:
    import pandas as pd


def panels(study: StudyRecord) -> dict[str, list[Panel]]:
    """Return the figures by section of the report; a section without any has too little to draw."""
    points = points_table(study)
    return {
        "trade_offs": _pairs(study, points),
        "overviews": _overviews(study, points),
        "hypervolume": _hypervolumes(study),
        "importance": _importance(study),
        "curves": _curves(study),
    }


def _pairs(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Every pair once, the quality (first objective) upright wherever it takes part."""
    pairs = combinations(study.objectives, 2) if len(points) else ()
    return [Panel(f"{y.name}-over-{x.name}", pair_figure(points, x, y), "") for y, x in pairs]


def _overviews(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """The view in space, which takes three objectives, and the parallel coordinates."""
    if points.empty:
        return []
    caption = (
        "One line per architecture, references thick. On the objectives' axes lower is better; the "
        "other axes show which shapes lead there."
    )
    dominated = len(study.complete) - int((points["kind"] != "dominated").sum())
    if dominated > FADED_LINES:
        caption += f" {FADED_LINES} of the {dominated:,} dominated ones are drawn."
    parallel = Panel("parallel", parallel_figure(points, study.objectives), caption)
    if len(study.objectives) < 3:
        return [parallel]
    cube = Panel(
        "space",
        cube_figure(points, study.objectives),
        "The corner with the smallest values is best. Blue is the best of the colour's objective, "
        "amber the worst; large points are the front. Drag to turn, scroll to zoom.",
    )
    return [cube, parallel]


def _hypervolumes(study: StudyRecord) -> list[Panel]:
    if not study.complete:
        return []
    table, start = hypervolume_table(study), reference_hypervolume(study)
    over = {"hypervolume-trials": "trial", "hypervolume-time": "training_s"}
    return [
        Panel(key, hypervolume_figure(table, x, start), "")
        for key, x in over.items()
        if x == "trial" or needs(study, "training")
    ]


def _importance(study: StudyRecord) -> list[Panel]:
    table = importance_table(study)
    if table.empty:
        return []
    caption = (
        "The share of an objective's variance (of its logarithm) that one axis explains by itself, "
        "less what chance would explain. Effects of axes acting together are not counted, and a "
        "search that favours some values blurs the picture: read it as a hint, not as a proof. An "
        "axis that only some architectures have is judged among those."
    )
    effects = (
        "What a choice makes of each objective, against the average choice of its axis: blue is "
        "less, which is better; in brackets what chance may explain (95 %). "
        f"The other axes, and how many trials each choice has: nas study effects {study.name}"
    )
    return [
        Panel("importance", importance_figure(table, study.objectives), caption),
        Panel("effects", effect_figure(effect_table(study), study.objectives), effects),
    ]


def _curves(study: StudyRecord) -> list[Panel]:
    table = curve_table(study)
    if table.empty:
        return []
    caption = (
        "Lower is better. Thick lines are the references (dotted: on their training images), thin "
        "blue ones the front; all are validation losses, with the KL term included."
    )
    return [Panel("curves", curve_figure(table), caption)]
