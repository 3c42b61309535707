"""The page of an explanation: one HTML file that opens offline."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from nas.explain.explanation import Cause, Explanation, LatencyGap
from studies.pages.page import embedded, render, write_page
from studies.profiles.explain_words import Words

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LABEL_LETTERS = 22
_ROW_PX, _FRAME_PX = 42, 60


def write_explanation(explanation: Explanation, path: Path) -> Path:
    """Write the explanation as one self-contained HTML file and return its path.

    Raises:
        UserError: The file cannot be written.
    """
    parts = [_part(explanation, comparison) for comparison in explanation.comparisons]
    context = {
        "explanation": explanation,
        "parts": parts,
        "first": parts[0],
        "facts": _facts(explanation),
        "tiles": _tiles(explanation.comparisons[0]),
        "environment": explanation.environment.model_dump_json(indent=1),
    }
    return write_page(path, render("explain.html", context), "page")


def waterfall_rows(words: Words) -> list[dict[str, Any]]:
    """Return the bars from A's time to B's: label, start and length in ms, interval, colour, text.

    Each cause starts where the one before it ended, so the last ends at B's time.
    """
    from studies.pages.style import GREY, reference_marks

    found, explanation = words.comparison, words.explanation
    names = (explanation.a_name, explanation.b_name)
    marks = reference_marks(list(dict.fromkeys(names)))
    rows = [_total(names[0], found.a.ms.value, marks[names[0]].colour, words)]
    at = found.a.ms.value
    for cause in found.causes:
        rows.append(_bar(cause, at, _colour(cause), words))
        at += cause.gap_ms.value
    rows.append(_bar(found.remainder, at, GREY, words))
    rows.append(_total(names[1], found.b.ms.value, marks[names[1]].colour, words))
    return rows


def waterfall(words: Words) -> go.Figure:
    """Draw the gap as bars that lead from A's time to B's."""
    import plotly.graph_objects as go

    from studies.pages.style import GREY, new_figure

    rows = waterfall_rows(words)
    figure = new_figure(f"From {words.explanation.a_name} to {words.explanation.b_name}, in ms")
    whiskers = {
        "type": "data",
        "array": [row["above"] for row in rows],
        "arrayminus": [row["below"] for row in rows],
        "symmetric": False,
        "thickness": 1,
        "width": 3,
        "color": GREY,
    }
    bars = go.Bar(
        y=[row["label"] for row in rows],
        x=[row["length"] for row in rows],
        base=[row["start"] for row in rows],
        marker_color=[row["colour"] for row in rows],
        error_x=whiskers,
        orientation="h",
        hovertext=[row["text"] for row in rows],
        hoverinfo="text",
        width=0.62,
    )
    figure.add_trace(bars)
    figure.update_layout(
        height=_ROW_PX * len(rows) + _FRAME_PX,
        margin={"l": 8, "r": 20, "t": 56, "b": 36},
        xaxis={"range": _range(rows), "ticksuffix": " ms", "nticks": 7},
        yaxis={"autorange": "reversed", "showgrid": False, "ticksuffix": "  "},
        annotations=[_label(row) for row in rows],
    )
    return figure


def _range(rows: list[dict[str, Any]]) -> list[float]:
    """Return the axis range: from zero, or a lower bar, to beyond the longest bar."""
    starts = [row["start"] + min(0.0, row["length"]) - row["below"] for row in rows]
    return [min(0.0, *starts), 1.12 * max(_right(row) for row in rows)]


def _right(row: dict[str, Any]) -> float:
    return float(row["start"] + max(0.0, row["length"] + row["above"]))


def _label(row: dict[str, Any]) -> dict[str, Any]:
    """Return an annotation with the amount, to the right of the bar and its whisker."""
    return {
        "x": _right(row),
        "y": row["label"],
        "text": row["amount"],
        "xanchor": "left",
        "xshift": 5,
        "showarrow": False,
        "align": "left",
    }


def _total(name: str, ms: float, colour: str, words: Words) -> dict[str, Any]:
    amount = f"{words.ms(ms)}"
    text = f"{name}: {amount} ms"
    return _entry(name, 0.0, ms, (0.0, 0.0), colour, amount, text)


def _bar(cause: Cause, start: float, colour: str, words: Words) -> dict[str, Any]:
    gap, sign = cause.gap_ms, "+" if cause.gap_ms.value > 0 else ""
    label = "<br>".join(wrap(cause.title, _LABEL_LETTERS))
    amount = f"{sign}{words.ms(gap.value)}"
    text = (
        f"<b>{cause.title}</b><br>{amount} ms, {100 * cause.share:.0f} % of the gap<br>"
        f"95 %: {words.ms(gap.low)} to {words.ms(gap.high)} ms"
    )
    whisker = (gap.value - gap.low, gap.high - gap.value)
    return _entry(label, start, gap.value, whisker, colour, amount, text)


def _entry(
    label: str,
    start: float,
    length: float,
    whisker: tuple[float, float],
    colour: str,
    amount: str,
    text: str,
) -> dict[str, Any]:
    places = {"label": label, "start": start, "length": length}
    ends = {"below": max(0.0, whisker[0]), "above": max(0.0, whisker[1])}
    return {**places, **ends, "colour": colour, "amount": amount, "text": text}


def _colour(cause: Cause) -> str:
    from studies.pages.style import AMBER, BLUE

    return AMBER if cause.gap_ms.value > 0 else BLUE


def _part(explanation: Explanation, comparison: LatencyGap) -> dict[str, Any]:
    from studies.pages.page import Panel

    words = Words(explanation, comparison)
    caption = (
        f"Each bar starts where the one above it ends: amber makes {explanation.b_name} slower, "
        "blue faster. Thin lines are 95 % intervals."
    )
    panel = Panel(f"batch-{comparison.batch}-gap", waterfall(words), caption)
    return {"words": words, "panel": embedded(panel)}


def _facts(explanation: Explanation) -> list[tuple[str, str]]:
    machine, found = explanation.environment, explanation.comparisons
    clock = "CPU time of the thread" if explanation.clock == "thread CPU" else "wall time"
    explained = ", ".join(f"{100 * c.explained_share:.1f} % (batch {c.batch})" for c in found)
    fed = [("Timed on", explanation.fed)] if explanation.fed else []
    return [
        ("Gap explained", explained),
        ("Device", machine.device_name),
        *fed,
        ("Threads", str(explanation.threads)),
        ("Rounds", ", ".join(f"{c.rounds} (batch {c.batch})" for c in found)),
        ("Clock", clock),
        ("Empty operation", f"{found[0].launch_us.value:.2f} µs"),
        ("Empty module call", f"{found[0].call_us.value:.2f} µs"),
        ("Allocator as it is", machine.allocator),
        ("torch", machine.torch_version),
    ]


def _tiles(found: LatencyGap) -> list[dict[str, str]]:
    a, b = found.a, found.b
    pairs = [
        ("parameters", a.counts.params, b.counts.params),
        ("MACs", a.counts.macs, b.counts.macs),
        ("bytes moved", a.counts.bytes_moved, b.counts.bytes_moved),
        ("launches", a.counts.launches, b.counts.launches),
        (f"time at batch {found.batch}", a.ms.value, b.ms.value),
    ]
    return [
        {"change": f"{y / x:.2f}x the {what}", "tint": "worse3" if y > x else "better3"}
        for what, x, y in pairs
    ]
