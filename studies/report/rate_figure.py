"""The plot of rate against distortion, with lines of equal total loss."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from nas.objectives import OBJECTIVES, TRAINED_OBJECTIVE, Objective
from studies.pages.page import Panel
from studies.pages.style import GREY, axis, new_figure, spans_a_decade
from studies.record.formats import axis_title, counted, listed
from studies.record.rate import kl_weight, loss_parts
from studies.record.records import StudyRecord
from studies.report.figures import add_points

DISTORTION = OBJECTIVES[TRAINED_OBJECTIVE]
RATE = Objective("kl", "KL", "nats", "static", "Kullback-Leibler divergence of the latent")
"""The rate as an axis. Only axes of costs become logarithmic where values span a decade."""

_NAMED = 3
_LINES = 9
_SHORTEST = 0.05
"""Lines that cut a corner of the box are left out: they are shorter than this share of it."""

_MARGIN = 0.06
"""Share of the axes' ranges that is left free around the points."""

Array = npt.NDArray[np.float64]


def rate_panels(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Return the plot of rate against distortion; nothing without two models to compare.

    Args:
        study: The study.
        points: As `points_table` returns it.
    """
    table = rate_table(study, points)
    if len(table) < 2:
        return []
    weight, caption = kl_weight(study) or 0.0, "The lower left is better in both."
    if weight:
        caption += (
            " A dotted line joins equal total losses: reconstruction loss + "
            f"{weight:g} x KL. Along a line, a lower reconstruction loss is bought with nats."
        )
    if left := [trial.name for trial, parts in loss_parts(study.complete) if parts.diverged]:
        which = listed(left) if len(left) <= _NAMED else counted(len(left), "training")
        caption += f" Diverged in training, and not drawn: {which}."
    return [Panel("rate", rate_figure(table, weight), caption)]


def rate_table(study: StudyRecord, points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per plotted trial that recorded the parts of its loss and did not diverge.

    Columns: `name`, `kind` and `front` as in `points`, `contended` (False), and
    `reconstruction_loss` and `kl`, each with `_low` and `_high` (NaN: no interval).
    """
    parts = {trial.name: (trial, one) for trial, one in loss_parts(study.complete)}
    rows = []
    for name, kind, front in points[["name", "kind", "front"]].itertuples(index=False):
        if name not in parts or parts[name][1].diverged:
            continue
        trial, ours = parts[name]
        low, high = trial.intervals.get(DISTORTION.name, (np.nan, np.nan))
        rows.append((name, kind, front, False, ours.distortion, low, high, ours.rate, *_NONE))
    ends = [f"{o.name}{end}" for o in (DISTORTION, RATE) for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["name", "kind", "front", "contended", *ends])


_NONE = (np.nan, np.nan)


def rate_figure(table: pd.DataFrame, weight: float) -> go.Figure:
    """Plot the rate against the distortion; the lower left is better in both.

    Args:
        table: As `rate_table` returns it.
        weight: Weight of the rate in the total loss; with 0 no lines are drawn.
    """
    figure = new_figure("Rate against distortion")
    log = spans_a_decade(RATE, table[RATE.name])
    across, along = _range(table[DISTORTION.name]), _range(table[RATE.name], log)
    if weight:
        _add_lines(figure, lines_of_equal_total(across, along, weight, log))
    add_points(figure, table, DISTORTION, RATE)
    shown = [math.log10(end) for end in along] if log else list(along)
    figure.update_xaxes(
        title_text=axis_title(DISTORTION), **axis(DISTORTION, table[DISTORTION.name]), range=across
    )
    figure.update_yaxes(title_text=axis_title(RATE), **axis(RATE, table[RATE.name]), range=shown)
    return figure


def lines_of_equal_total(
    distortions: tuple[float, float], rates: tuple[float, float], weight: float, log: bool = False
) -> dict[float, tuple[Array, Array]]:
    """Return lines of equal total loss inside a box, by round values of the total loss.

    Args:
        distortions: The box's range of the distortion.
        rates: Its range of the rate, in nats.
        weight: Weight of the rate in the total loss, above 0.
        log: Whether the rate's axis is logarithmic, where the lines are curves.

    Returns:
        The distortions and the rates of each line, from its lower right to its upper left end.
    """
    (left, right), (bottom, top) = distortions, rates
    lines = {}
    for total in _round_values(left + weight * bottom, right + weight * top):
        first, last = max(bottom, (total - right) / weight), min(top, (total - left) / weight)
        if last - first > _SHORTEST * (top - bottom):
            along = np.geomspace(first, last, 40) if log else np.array([first, last])
            lines[total] = total - weight * along, along
    return lines


def _round_values(low: float, high: float) -> list[float]:
    """Return about `_LINES` round values between `low` and `high`, in steps of 1, 2 or 5."""
    rough = (high - low) / _LINES
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _range(values: pd.Series[float], log: bool = False) -> tuple[float, float]:
    drawn = np.log10(values) if log else values
    low, high = float(drawn.min()), float(drawn.max())
    room = _MARGIN * (high - low or abs(high) or 1.0)
    ends = low - room, high + room
    return (10.0 ** ends[0], 10.0 ** ends[1]) if log else ends


def _add_lines(figure: go.Figure, lines: dict[float, tuple[Array, Array]]) -> None:
    """Draw the lines as one trace, with gaps between them and a label at each upper end."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for total, (distortions, rates) in lines.items():
        x += [*distortions.tolist(), None]
        y += [*rates.tolist(), None]
        text += ["" for _ in rates[1:]] + [f"\N{NO-BREAK SPACE}{total:g}", ""]
    figure.add_scatter(
        x=x, y=y, text=text, mode="lines+text", textposition="bottom right", hoverinfo="skip",
        line={"color": GREY, "width": 1, "dash": "dot"}, textfont={"color": GREY, "size": 11},
        showlegend=False, name="equal total loss",
    )  # fmt: skip
