"""Draw the losses that a search saw against the confirmed ones."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from nas.objectives import Objective
from studies.pages.style import BLUE, GREY, new_figure, reference_marks
from studies.record.formats import noun


def confirmation_figure(table: pd.DataFrame, loss: Objective) -> go.Figure:
    """Plot the confirmed value of each model over the value that the search saw.

    Args:
        table: As `studies.record.confirmed.confirmation_table` returns it.
        loss: The objective.
    """
    figure = new_figure(f"{loss.title}: confirmed against observed")
    values = table[["observed", "low", "high"]].to_numpy(dtype=float)
    ends = [float(values.min()), float(values.max())]
    figure.add_scatter(
        x=ends, y=ends, mode="lines", line={"color": GREY, "width": 1.5, "dash": "dash"},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    for kind, rows in table.groupby("kind", sort=False):
        marker = _marker(str(kind), [str(one) for one in table["kind"].unique()])
        figure.add_scatter(
            x=rows["observed"].tolist(),
            y=rows["confirmed"].tolist(),
            mode="markers+text",
            name=str(kind),
            marker=marker,
            text=rows["name"].tolist(),
            textposition="top left",
            textfont={"size": 11, "color": marker["color"]},
            error_y=_bars(rows, str(marker["color"])),
            hovertemplate="%{text}: observed %{x:.4f}, confirmed %{y:.4f}<extra></extra>",
            showlegend=False,
        )
    figure.update_xaxes(title_text=f"{loss.title} that the search saw")
    figure.update_yaxes(title_text=f"Mean {noun(loss)} over further seeds")
    return figure


def _marker(kind: str, kinds: list[str]) -> dict[str, Any]:
    names = [one for one in kinds if one not in ("front", "dominated")]
    if kind in names:
        mark = reference_marks(names)[kind]
        return {"color": mark.colour, "size": 13, "symbol": mark.symbol}
    return {"color": BLUE if kind == "front" else GREY, "size": 9}


def _bars(rows: pd.DataFrame, colour: str) -> dict[str, Any]:
    return {
        "array": (rows["high"] - rows["confirmed"]).tolist(),
        "arrayminus": (rows["confirmed"] - rows["low"]).tolist(),
        "symmetric": False,
        "thickness": 1,
        "width": 0,
        "color": colour,
    }
