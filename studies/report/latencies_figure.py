"""The plots of one latency against another, where a study has several set-ups."""

from __future__ import annotations

import numpy as np
import pandas as pd

from nas.objectives import Objective
from studies.pages.page import Panel
from studies.record.formats import noun
from studies.record.latencies import Agreement, agreements
from studies.record.records import StudyRecord
from studies.report.figures import pair_figure


def latency_panels(study: StudyRecord, points: pd.DataFrame) -> list[Panel]:
    """Return a plot of each pair of latencies, with how far their orders agree.

    Args:
        study: The study.
        points: As `points_table` returns it.
    """
    return [
        Panel(
            f"{two.other.name}-against-{two.one.name}".replace(":", "-"),
            pair_figure(latency_table(study, points, (two.one, two.other)), two.one, two.other),
            agreement_words(two),
        )
        for two in agreements(study)
    ]


def latency_table(
    study: StudyRecord, points: pd.DataFrame, latencies: tuple[Objective, Objective]
) -> pd.DataFrame:
    """Return the plotted trials with two latencies and their intervals (NaN: no interval).

    Columns: `name`, `kind`, `front`, `learned` and `contended` as in `points`, and `<latency>`,
    `<latency>_low` and `<latency>_high`.
    """
    table = points[["name", "kind", "front", "learned", "contended"]].copy()
    trials = {trial.name: trial for trial in study.complete}
    for latency in latencies:
        rows = [trials[name] for name in table["name"]]
        ends = [one.intervals.get(latency.name, (np.nan, np.nan)) for one in rows]
        table[latency.name] = [one.objectives[latency.name] for one in rows]
        table[f"{latency.name}_low"] = [low for low, _ in ends]
        table[f"{latency.name}_high"] = [high for _, high in ends]
    return table


def agreement_words(two: Agreement) -> str:
    """Return in words how far two latencies agree."""
    one, other = noun(two.one), noun(two.other)
    low, high = two.interval
    words = (
        f"Kendall's tau between {one} and {other} is {two.tau:.2f} ({low:.2f} to {high:.2f}) over "
        f"{two.models:,} architectures; 1 is the same order, 0 is no relation."
    )
    if two.reference:
        words += (
            f" Faster than {two.reference} by {one} alone: {two.faster_in_one:,}; by {other} "
            f"alone: {two.faster_in_other:,}."
        )
    return words
