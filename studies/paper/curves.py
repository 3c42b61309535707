"""Loss curves of both models, compared with the published ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from search_spaces.references import PUBLISHED
from studies.record.records import StudyRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go


def paper_curve_table(study: StudyRecord) -> pd.DataFrame:
    """Return the total loss of each model, source (`here`, `published`), part and epoch."""
    rows: list[dict[str, Any]] = []
    for model, trial in study.references.items():
        for one in trial.history:
            for part in ("train", "validation"):
                rows.append(_row(model, "here", part, int(one["epoch"]), one[f"{part}_loss"]))
    for model, published in PUBLISHED.items():
        for epoch, losses in enumerate(published.losses, start=1):
            for part, loss in zip(("train", "validation"), losses, strict=True):
                rows.append(_row(model, "published", part, epoch, loss))
    return pd.DataFrame(rows)


def paper_curve_figure(table: pd.DataFrame, device_name: str) -> go.Figure:
    """Draw our curves as thick lines and the published ones as thin lines; training is dotted."""
    from studies.pages.style import MARKS, new_figure

    figure = new_figure(f"Total loss by epoch, here on {device_name}")
    for (model, source, part), rows in table.groupby(["model", "source", "part"], sort=False):
        here, validation = source == "here", part == "validation"
        few = {"mode": "lines+markers"} if here and validation else {"mode": "lines"}
        line = {
            "color": MARKS[str(model)].colour,
            "width": (3 if validation else 2) if here else 1.2,
            "dash": "solid" if validation else "dot",
        }
        label = f"{model}, {source}"
        figure.add_scatter(
            x=rows["epoch"].tolist(), y=rows["loss"].tolist(), line=line, name=label,
            opacity=1 if here else 0.6, showlegend=validation,
            hovertemplate=f"{label}, {part}: %{{y:.4f}}<extra>epoch %{{x}}</extra>", **few,
        )  # fmt: skip
    figure.update_xaxes(title_text="Epoch", dtick=1)
    figure.update_yaxes(title_text="Total loss")
    return figure


def _row(model: str, source: str, part: str, epoch: int, loss: float) -> dict[str, Any]:
    return {"model": model, "source": source, "part": part, "epoch": epoch, "loss": loss}
