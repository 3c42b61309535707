"""The plot of deployed variants beside the models that they come from: loss over latency."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go

from nas.objectives import LATENCY, OBJECTIVES, TRAINED_OBJECTIVE
from studies.pages.page import Panel
from studies.pages.style import AMBER, BLUE, GREY, axis, new_figure
from studies.record.deployed import DeployedRecord, read_deployed
from studies.record.formats import axis_label
from studies.record.records import StudyRecord, TrialRecord

LOSS, TIME = OBJECTIVES[TRAINED_OBJECTIVE], OBJECTIVES[LATENCY]

MODEL, DEPLOYED, REJECTED = "model", "deployed", "rejected"
"""Kinds of points."""

_LOOKS = {
    REJECTED: {"color": GREY, "size": 7, "symbol": "circle-open"},
    MODEL: {"color": BLUE, "size": 11},
    DEPLOYED: {"color": AMBER, "size": 13, "symbol": "star"},
}


def deployed_panels(study: StudyRecord) -> list[Panel]:
    """Return a plot for each machine on which variants of the study's models were timed."""
    groups: dict[tuple[str | None, str], list[DeployedRecord]] = {}
    for record in read_deployed(study.folder)[0]:
        groups.setdefault((record.target, record.device), []).append(record)
    panels = list[Panel]()
    for (_, device), records in groups.items():
        table = variants_table(study, records)
        if len(table):
            key = f"variants-{len(panels) + 1}" if panels else "variants"
            panels.append(Panel(key, deployed_figure(table), _caption(device, records)))
    return panels


def variants_table(study: StudyRecord, records: Iterable[DeployedRecord]) -> pd.DataFrame:
    """Return a row for each model and each of its variants that was built.

    The loss of a variant is that of its trial and what the variant costs of it.

    Columns: `model` (name of the trial), `name`, `kind`, and `latency_ms` and
    `reconstruction_loss`, each with `_low` and `_high`.
    """
    trials = {trial.number: trial for trial in study.complete}
    rows = [
        row
        for record in records
        if (trial := trials.get(record.trial)) and _loss(trial) is not None
        for row in _rows(trial, record)
    ]
    ends = [
        f"{name}{end}" for name in (LATENCY, TRAINED_OBJECTIVE) for end in ("", "_low", "_high")
    ]
    return pd.DataFrame(rows, columns=["model", "name", "kind", *ends])


def _loss(trial: TrialRecord) -> float | None:
    return trial.objectives.get(TRAINED_OBJECTIVE, trial.metrics.get(TRAINED_OBJECTIVE))


def _rows(trial: TrialRecord, record: DeployedRecord) -> list[tuple[object, ...]]:
    loss, rows, base_ms = _loss(trial) or 0.0, list[tuple[object, ...]](), 0.0
    for one in record.variants:
        if one.latency_ms is None or one.over_eager is None or one.cost is None:
            continue
        base_ms = one.latency_ms / one.over_eager[0]
        times = one.latency_ms, *(base_ms * bound for bound in one.over_eager[1:])
        costs = one.cost, *(one.cost_interval or (one.cost, one.cost))
        kind = REJECTED if one.rejected else DEPLOYED
        rows.append((trial.name, one.name, kind, *times, *(loss * (1 + cost) for cost in costs)))
    model = (trial.name, record.baseline, MODEL, *[base_ms] * 3, *[loss] * 3)
    return [model, *rows] if rows else []


def deployed_figure(table: pd.DataFrame) -> go.Figure:
    """Plot loss over latency; a dotted line joins a model to its variant that is deployed.

    Args:
        table: As `variants_table` returns it.
    """
    figure = new_figure("Deployed variants")
    for _, rows in table.groupby("model", sort=False):
        ends = rows[rows["kind"] != REJECTED]
        figure.add_scatter(
            x=ends[LATENCY].tolist(), y=ends[TRAINED_OBJECTIVE].tolist(), mode="lines",
            line={"color": GREY, "width": 1, "dash": "dot"}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    for kind, look in _LOOKS.items():
        rows = table[table["kind"] == kind]
        figure.add_scatter(
            x=rows[LATENCY].tolist(), y=rows[TRAINED_OBJECTIVE].tolist(), name=kind,
            mode="markers+text", marker=look, cliponaxis=False,
            textposition="top left" if kind == MODEL else "top right",
            text=[_label(*one) for one in zip(rows["model"], rows["name"], rows["kind"],
                                              strict=True)],
            hovertext=[f"{a}, {b}" for a, b in zip(rows["model"], rows["name"], strict=True)],
            hovertemplate="%{hovertext}<br>%{x:.3g} ms, loss %{y:.4f}<extra></extra>",
            **{f"error_{letter}": _bars(rows, name)
               for letter, name in (("x", LATENCY), ("y", TRAINED_OBJECTIVE))},
        )  # fmt: skip
    figure.update_xaxes(title_text=axis_label(TIME), **axis(TIME, table[LATENCY]))
    figure.update_yaxes(title_text=axis_label(LOSS), **axis(LOSS, table[TRAINED_OBJECTIVE]))
    return figure


def _label(model: str, name: str, kind: str) -> str:
    return {MODEL: f"{model}, {name}", DEPLOYED: name, REJECTED: ""}[kind]


def _bars(rows: pd.DataFrame, name: str) -> dict[str, object]:
    return {
        "array": (rows[f"{name}_high"] - rows[name]).tolist(),
        "arrayminus": (rows[name] - rows[f"{name}_low"]).tolist(),
        "thickness": 1,
    }


def _caption(device: str, records: Iterable[DeployedRecord]) -> str:
    counts = sorted({record.threads for record in records})
    threads = "1 thread" if counts == [1] else f"{' and '.join(map(str, counts))} threads"
    return (
        f"One image on {device}, {threads}. The lower left is better in both. A variant has the "
        "loss of its model and what it costs of it on held-out images; bars are 95 % intervals."
    )
