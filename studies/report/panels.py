"""The figures of a study's report in their order, with captions."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from nas.objectives import Objective
from studies.pages.page import Panel
from studies.pages.style import FADED
from studies.record.axis_effects import effect_table, importance_table
from studies.record.confirmed import confirmation_table, the_loss
from studies.record.formats import directions, listed, noun
from studies.record.records import StudyRecord
from studies.record.tables import needs
from studies.report.confirmation_figure import confirmation_figure
from studies.report.deployed_figure import deployed_panels
from studies.report.figure_tables import (
    curve_table,
    floor_lines,
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
from studies.report.latencies_figure import latency_panels
from studies.report.overviews import FADED_LINES, cube_figure, parallel_figure
from studies.report.rate_figure import rate_panels

if TYPE_CHECKING:
    import pandas as pd


def report_panels(study: StudyRecord) -> dict[str, list[Panel]]:
    """Return the figures of each section of the report; empty if there is too little data."""
    points = points_table(study)
    return {
        "trade_offs": _pairs(study, points),
        "overviews": _overviews(study, points),
        "confirmation": _confirmation(study),
        "deployed": deployed_panels(study),
        "hypervolume": _hypervolumes(study),
        "importance": _importance(study),
        "latencies": latency_panels(study, points),
        "rate": rate_panels(study, points),
        "curves": _curves(study),
    }


def _pairs(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Return one figure for each pair of objectives; the first objective is always vertical."""
    pairs = combinations(study.objectives, 2) if len(points) else ()
    floors = _floors(study)
    return [
        Panel(f"{y.name}-over-{x.name}", pair_figure(points, x, y, floors), "") for y, x in pairs
    ]


def _floors(study: StudyRecord) -> dict[str, dict[str, float]]:
    """Return the floors to draw by objective and label; objectives without floors have none."""
    return {name: floor_lines(study, name) for name in study.objective_names}


def _overviews(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Return the plot in three dimensions, if there are three objectives, and the parallel plot."""
    if points.empty:
        return []
    caption = (
        "One line is one architecture; thick lines are references. On the axes of objectives the "
        "best value is at the bottom; the other axes show the shape of the network."
    )
    dominated = len(study.complete) - int((~points["kind"].isin(FADED)).sum())
    if dominated > FADED_LINES:
        caption += f" {FADED_LINES} of the {dominated:,} other architectures are drawn."
    parallel = Panel("parallel", parallel_figure(points, study.objectives, _floors(study)), caption)
    if len(study.objectives) < 3:
        return [parallel]
    cube = Panel(
        "space",
        cube_figure(points, study.objectives),
        f"{_best_corner(study)} Colour shows one objective, from its best "
        "value (blue) to its worst (amber); large points are the front. Drag to rotate, scroll to "
        "zoom.",
    )
    return [cube, parallel]


def _confirmation(study: StudyRecord) -> list[Panel]:
    loss, table = the_loss(study), confirmation_table(study)
    if loss is None or study.noise is None or table.empty:
        return []
    caption = (
        "One point is one confirmed model; bars are 95 % intervals. Above the dashed line the "
        "search saw a lower value than further trainings give: it chose the model partly for its "
        "luck. References were not chosen by a loss."
    )
    return [Panel("confirmation", confirmation_figure(table, loss), caption)]


def _best_corner(study: StudyRecord) -> str:
    if all(objective.direction == "minimise" for objective in study.objectives):
        return "The corner with the smallest values is best."
    return directions(study.objectives)


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
        f"The share of the variance of {_analysed(study)} that one axis explains by itself, "
        "minus the share expected by chance. Interactions between axes are not counted, and a "
        "search that prefers some values biases the shares: they are hints, not proof. The share "
        "of an axis that only some architectures have is computed among those."
    )
    effects = (
        "The effect of a choice on each objective, relative to the average choice of its axis: "
        f"blue is {_better(study)}. Effects in brackets are not significant at 95 %. For the "
        f"other axes and the number of trials of each choice, run: nas study effects {study.name}"
    )
    return [
        Panel("importance", importance_figure(table, study.objectives), caption),
        Panel("effects", effect_figure(effect_table(study), study.objectives), effects),
    ]


def _analysed(study: StudyRecord) -> str:
    others = [noun(objective) for objective in study.objectives if not objective.by_factor]
    return "an objective's logarithm" + (f" (of {listed(others)} itself)" if others else "")


def _better(study: StudyRecord) -> str:
    lower = all(objective.direction == "minimise" for objective in study.objectives)
    return "lower, which is better" if lower else "better"


def _curves(study: StudyRecord) -> list[Panel]:
    table = curve_table(study)
    if table.empty:
        return []
    caption = (
        "Lower is better. Thick lines are the references, thin blue lines the front. Solid lines "
        "are validation losses, dotted lines training losses; both include the KL term. Dashed "
        "lines are the mean training image and PCA."
    )
    panels = [
        Panel("curves", curve_figure(table, floors=floor_lines(study, "total_loss")), caption)
    ]
    for objective in study.trained[:1]:
        if objective.name != "total_loss" and table["objective"].notna().any():
            drawn = curve_figure(table, objective, floor_lines(study, objective.name))
            panels.append(Panel("curves-objective", drawn, _curves_caption(objective)))
    return panels


def _curves_caption(objective: Objective) -> str:
    return (
        f"{objective.better.capitalize()} is better. A trial has the value of the epoch with the "
        "lowest total loss on the validation images."
    )
