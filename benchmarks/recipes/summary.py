"""The tables of the comparison, from the records of its trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from benchmarks.recipes.jobs import CHOICE, EPOCHS, finite
from benchmarks.recipes.variants import TODAY, VARIANTS

TRAININGS = Path("benchmarks/results/recipes/trainings.csv")

DEFAULT = "schedule-free 1e-2"
"""The variant that became the default recipe."""

KEYS = ["size", "images", "model", "variant", "seed"]
CELL = ["size", "images", "model", "seed"]


def build(folder: Path, to: Path) -> int:
    """Write one row for each training: validation losses after each epoch; return their number."""
    rows = [_row(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    table = pd.DataFrame(rows).sort_values(KEYS)
    to.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(to, index=False, float_format="%.6g", lineterminator="\n")
    return len(rows)


def _row(record: dict[str, Any]) -> dict[str, Any]:
    last = record["epochs"][-1]["validation"] if record["epochs"] else {}
    after = {
        f"total_{number}": record["epochs"][number - 1]["validation"]["total"]
        for number in range(1, len(record["epochs"]) + 1)
    }
    kept = ("reconstruction", "kl", "variation", "active_units")
    return {
        **{key: record[key] for key in KEYS},
        "digest": record["digest"],
        "diverged": not finite(record),
        **after,
        **{name: last.get(name) for name in kept},
        "processor_s": record["processor_s"],
    }


def summary(path: Path) -> str:
    """Return the tables as text."""
    table = pd.read_csv(path, dtype={"model": str})
    table["loss"] = _best(table, EPOCHS)
    parts = [
        f"{len(table)} trainings, {int(table.diverged.sum())} ended in a loss that is not a number"
    ]
    for (size, images), group in table.groupby(["size", "images"]):
        for what, part in _halves(group):
            if not part.empty:
                title = f"{size} pixels, {images}, {part.model.nunique()} models ({what})"
                parts.append(f"{title}\n{_compared(part).to_string()}")
    return "\n\n".join(parts)


def _halves(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    numbers = pd.to_numeric(table.model, errors="coerce")
    held_out = numbers >= CHOICE
    return [("of the choice", table[~held_out]), ("held out", table[held_out])]


def _best(table: pd.DataFrame, epochs: int) -> pd.Series:
    """Return the lowest total loss of the first `epochs` epochs, as a study would keep it."""
    return table[[f"total_{number}" for number in range(1, epochs + 1)]].min(axis=1)


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each variant that every model of a group was trained with."""
    wide = table.pivot_table(index=CELL, columns="variant", values="loss")
    counts = wide.notna().sum()
    wide = wide[[name for name in VARIANTS if counts.get(name, 0) == len(wide)]]
    best, rows = wide.min(axis=1), {}
    for name in wide:
        mine = table[table.variant == name].set_index(CELL)
        regret = wide[name] / best - 1
        early = _best(mine.reset_index(), EPOCHS // 2)
        rows[name] = {
            "mean loss": wide[name].mean(),
            "against today": (wide[name] / wide[TODAY]).mean() - 1,
            "mean regret": regret.mean(),
            "worst regret": regret.max(),
            "worst model": regret.reset_index(name="regret").nlargest(1, "regret").model.iloc[0],
            "tau half, end": kendalltau(early, mine["loss"]).statistic,
            "half, against today's end": (early.to_numpy() / wide[TODAY].loc[mine.index]).mean()
            - 1,
            "s": mine.processor_s.mean(),
        }
    shown = pd.DataFrame(rows).T
    return shown.map(lambda value: f"{value:.3f}" if isinstance(value, float) else str(value))
