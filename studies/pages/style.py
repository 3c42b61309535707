"""The common style of all figures: colours, symbols, axes, layers.

Colours are those of Okabe and Ito, which people with any kind of colour vision can distinguish.
Blue is the front and "better", amber is "worse", grey is dominated. Each reference has the same
colour and symbol in every figure, also in three dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from nas.objectives import Objective
from studies.record.formats import format_axis

BLUE, AMBER, GREY, INK, GRID = "#0072b2", "#e69f00", "#8a94a0", "#39424e", "#e4e7eb"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


UNLEARNED = "has not learned"
"""The kind of points of trials, other than references, that have not learned."""

FADED = (UNLEARNED, "dominated")
"""The kinds of points that are neither on the front nor references."""


@dataclass(frozen=True)
class Mark:
    """Colour and symbol of a reference in every figure."""

    colour: str
    symbol: str


MARKS = {"original": Mark("#d55e00", "square"), "modified": Mark("#b0438b", "diamond")}
_OTHERS = (Mark("#009e73", "cross"), Mark("#8c7300", "x"))


def reference_marks(names: list[str]) -> dict[str, Mark]:
    """Return the mark of each reference; those of the paper's two references are fixed."""
    others = [name for name in names if name not in MARKS]
    spare = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {name: MARKS.get(name) or spare[name] for name in names}


def new_figure(title: str) -> go.Figure:
    """Return an empty figure in the common style."""
    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
    }
    layout = {
        "template": go.layout.Template(layout={"xaxis": axis, "yaxis": axis}),
        "title": {"text": title, "x": 0, "xref": "paper", "y": 0.98, "yanchor": "top",
                  "font": {"size": 15, "weight": 600}},
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "margin": {"l": 56, "r": 20, "t": 64, "b": 48},
        "hoverlabel": {"align": "left", "font": {"family": FONT, "size": 12}},
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    }  # fmt: skip
    return go.Figure(layout=layout)


def layers(points: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Split points into (label, kind, rows) in drawing order: the last are the references.

    Members of the front whose latency was measured on a busy machine are a separate layer.
    """
    layer = {UNLEARNED: 0, "dominated": 1, "front": 2}
    split = []
    for kind in sorted(dict.fromkeys(points["kind"]), key=lambda kind: layer.get(kind, 3)):
        rows = points[points["kind"] == kind]
        if kind == "front":
            busy = rows["contended"].astype(bool)
            split += [("front", kind, rows[~busy]), ("front, busy machine", kind, rows[busy])]
        else:
            split.append((kind, kind, rows))
    return [(label, kind, rows) for label, kind, rows in split if len(rows)]


def marks_in(points: pd.DataFrame) -> dict[str, Mark]:
    """Return the marks of the references among `points`."""
    kinds = list(dict.fromkeys(points["kind"]))
    return reference_marks([kind for kind in kinds if kind not in (*FADED, "front")])


def axis(objective: Objective, values: pd.Series[float]) -> dict[str, Any]:
    """Return Plotly's scale and ticks of an objective's axis."""
    if not spans_a_decade(objective, values):
        count = objective.unit != "ms" and objective.cost != "training"
        return {"type": "linear", "tickformat": "~s" if count else "", "nticks": 7}
    ticks = log_ticks(values.min(), values.max())
    labels = [format_axis(objective, tick) for tick in ticks]
    return {"type": "log", "tickvals": ticks, "ticktext": labels}


def draw_floors(figure: go.Figure, floors: Mapping[str, float], letter: str = "y") -> None:
    """Draw a labelled dashed line across the figure at each value of the axis `x` or `y`.

    The highest line is labelled in its middle and the others at their start, where plots of losses
    have the fewest points.
    """
    other = "y" if letter == "x" else "x"
    for label, value in floors.items():
        place = {f"{letter}0": value, f"{letter}1": value, f"{letter}ref": letter}
        across = {f"{other}0": 0, f"{other}1": 1, f"{other}ref": f"{other} domain"}
        where = "middle" if value == max(floors.values()) else "start"
        figure.add_shape(
            type="line", layer="below", line={"color": GREY, "width": 1, "dash": "dash"},
            label={"text": label, "textposition": where, "yanchor": "bottom",
                   "font": {"size": 10, "color": GREY}}, **place, **across,
        )  # fmt: skip


def log_ticks(low: float, high: float) -> list[float]:
    """Return round ticks from `low` to `high` (both > 0): 1-2-5 steps, or whole decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 2 else (1, 3) if decades <= 3.2 else (1,)
    ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [tick for tick in ticks if low / 1.5 <= tick <= high * 1.5]


def spans_a_decade(objective: Objective, values: pd.Series[float]) -> bool:
    """Return whether an objective's axis is logarithmic: a cost whose values span a decade."""
    return objective.cost != "training" and bool(values.max() > 10 * values.min() > 0)


def along(objective: Objective, values: pd.Series[float]) -> npt.NDArray[np.float64]:
    """Return the positions of values on their axis, from 0 (lowest) to 1 (highest)."""
    drawn = np.log(values) if spans_a_decade(objective, values) else values
    return np.asarray((drawn - drawn.min()) / max(float(np.ptp(drawn)), 1e-12), dtype=np.float64)
