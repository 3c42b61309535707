"""Write a comparison: curves and a summary per table, as data, text and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from studies.bench.contenders import CONTENDERS
from studies.bench.curves import (
    OVER,
    above,
    curves,
    markdown,
    minutes_reached,
    number_reached,
    summary,
)
from studies.bench.figures import grouped, regret_figure, write_figures
from studies.bench.runs import setting_name
from studies.bench.shipped import load_table
from studies.bench.tables import METRICS
from studies.terminal.table import Column, Table


@dataclass(frozen=True)
class Written:
    """The summary for a terminal, and the paths of the files."""

    table: Table
    paths: tuple[Path, ...]


def write_comparison(
    results: Sequence[Mapping[str, Any]], folder: Path, figures: bool = True
) -> Written:
    """Write curves and summary of results of one table and one budget.

    Files: `NAME-curves.csv`, `NAME-summary.csv` and `.md`, and with `figures` one HTML page and one
    PNG per horizontal axis, ablations of our own sampler on pages of their own. NAME is that of the
    setting, such as `nb201-100x4`.
    """
    table, seeds = results[0]["table"], len({result["seed"] for result in results})
    noise = results[0]["noise"]
    name = setting_name(*(results[0][key] for key in ("table", "trials", "workers", "noise")))
    timed = load_table(table).timed
    axes = OVER if timed else OVER[:1]
    drawn = {(over, metric): curves(results, over, metric) for over in axes for metric in METRICS}
    summarised = summary(results)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{kind}" for kind in ("curves.csv", "summary.csv", "summary.md")]
    stacked = [
        frame.rename(columns={over: "at"}).assign(over=over, metric=metric)
        for (over, metric), frame in drawn.items()
    ]
    pd.concat(stacked, ignore_index=True).to_csv(paths[0], index=False, float_format="%.6g")
    summarised.to_csv(paths[1], index=False, float_format="%.6g")
    titles = {key: contender.title for key, contender in CONTENDERS.items()}
    paths[2].write_text(markdown(summarised, titles, timed, noise > 0) + "\n", encoding="utf-8")
    if figures:
        observed = f", losses observed to {noise:.1%}" if noise else ""
        about = f"on {table}: median and quartiles of {seeds} seeds{observed}"
        pictures = [(over, "regret", over, f"Regret {about}") for over in axes]
        accurate = f"Regret of the accurate half {about}"
        pictures.append((axes[0], "accurate", f"{axes[0]}-accurate", accurate))
        made = {
            f"{name}-{key}{group}": regret_figure(rows, over, title)
            for over, metric, key, title in pictures
            for group, rows in grouped(drawn[over, metric]).items()
        }
        paths += write_figures(made, folder)
    return Written(_table(table, summarised, timed, noise), tuple(paths))


def _table(name: str, summarised: pd.DataFrame, timed: bool, noise: float) -> Table:
    heads = ["evaluations", *(["epochs", "time"] if timed else [])]
    heads += ["seeds", "regret", *(["fitted"] if noise else [])]
    heads += ["accurate half", "IGD+", "lowest loss", "repeats", "ask"]
    judged = ["regret_median", *(["regret_fitted"] if noise else []), "accurate", "igd_plus"]
    title = f"{name}: to 99 % of the exact front's hypervolume (medians)"
    shown = Table(Column("sampler", text=True), *heads, title=title)
    for row in summarised.to_dict("records"):
        epochs = (
            [number_reached(row["to_99_epochs"]), minutes_reached(row["to_99_s"])] if timed else []
        )
        shown.add(
            row["sampler"],
            number_reached(row["to_99_evaluations"]),
            *epochs,
            f"{row['reached']}/{row['seeds']}",
            *(f"{row[column]:.4f}" for column in judged),
            above(row["lowest"]),
            f"{row['duplicates']:.1f}",
            f"{row['ask_ms']:.1f} ms",
        )
    return shown
