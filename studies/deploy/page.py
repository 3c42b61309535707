"""The page of a deployment: the variants and their trade-off."""

from __future__ import annotations

import plotly.graph_objects as go

from studies.deploy.deployment import Deployment
from studies.deploy.words import baseline_name, facts, heads, method, notes, rows, verdict
from studies.pages.page import Panel, embedded, render
from studies.pages.style import BLUE, GREY, new_figure


def page(found: Deployment) -> str:
    """Return the page as one self-contained HTML file."""
    caption = (
        "Latency and what each variant costs of the loss; the lower left is better in both. "
        "Bars are 95 % intervals. Move the pointer to a point to see its name."
    )
    taken = found.examined.found
    environment = taken.counted(taken.reference).environment
    context = {
        "name": found.subject.trained.name,
        "verdict": verdict(found),
        "notes": list(notes(found)),
        "facts": facts(found),
        "heads": heads(found),
        "rows": rows(found),
        "panel": embedded(Panel("variants", figure(found), caption)),
        "method": method(found),
        "environment": environment.model_dump_json(indent=1),
    }
    return render("deploy.html", context)


def figure(found: Deployment) -> go.Figure:
    """Plot the latency of the variants against what they cost of the loss."""
    drawn, base = new_figure("Latency and loss"), baseline_name(found)
    latency = found.examined.found.counted(found.examined.found.reference)
    _add(drawn, base, latency.median_ms, latency.interval_ms, 0.0, (0.0, 0.0), GREY, named=True)
    for one in found.examined.built:
        latency, cost = found.examined.found.counted(one.variant.name), one.quality
        times = latency.median_ms, latency.interval_ms
        named = one is found.chosen
        colour = BLUE if named else GREY
        _add(drawn, one.variant.name, *times, cost.cost, cost.interval, colour, named=named)
    drawn.update_layout(showlegend=False)
    drawn.update_xaxes(title="Latency (ms)", rangemode="tozero")
    drawn.update_yaxes(title="Increase of the loss (%)")
    return drawn


def _add(
    drawn: go.Figure,
    name: str,
    latency_ms: float,
    latency_bounds: tuple[float, float],
    cost: float,
    cost_bounds: tuple[float, float],
    colour: str,
    *,
    named: bool,
) -> None:
    x, y = latency_ms, 100 * cost
    across, along = latency_bounds, tuple(100 * bound for bound in cost_bounds)
    drawn.add_scatter(
        x=[x], y=[y], mode="markers+text", name=name, textposition="top center",
        text=[name if named else ""], hovertext=[name],
        marker={"color": colour, "size": 10},
        error_x={"array": [across[1] - x], "arrayminus": [x - across[0]], "thickness": 1},
        error_y={"array": [along[1] - y], "arrayminus": [y - along[0]], "thickness": 1},
    )  # fmt: skip
