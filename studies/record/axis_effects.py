"""Estimate the effect of each axis of a space on each objective, from a study's own trials.

Axes are analysed one at a time: interactions between axes are not counted. A search that favours
some choices biases the estimates; a study of random trials gives the best ones. References do not
count, because they may be far from all searched architectures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.objectives import OBJECTIVES, by_factor
from studies.record.formats import MISSING, format_change, format_signed
from studies.record.records import StudyRecord, TrialRecord

Array = npt.NDArray[np.float64]

MINIMUM_TRIALS = 10
"""With fewer trials than this the importance of an axis would be noise."""

_PARTS = 4
"""Numeric axes with many different values are cut into this many quantile groups."""

_MANY = 5
"""Numeric axes with more different values than this are cut at their quartiles."""


def importance_table(study: StudyRecord) -> pd.DataFrame:
    """Return the share of each objective's variance that an axis explains by itself.

    A one-way analysis of variance of the logarithm of the objective, or of its values if they are
    compared by differences: the between-group sum of squares, corrected for chance (epsilon
    squared), over the total sum of squares, from 0 (no effect) to 1. Numeric axes with more than
    five values are cut at their quartiles. A conditional axis is credited only for differences
    among the trials that have it. Trials that were rejected before training count for the
    objectives that are known.

    Returns:
        One row per axis, most important first; one column per objective that is known in at least
        `MINIMUM_TRIALS` trials. Without such an objective the table is empty.
    """
    usable = _judged(study)
    axes = list(dict.fromkeys(axis for trial in usable for axis in trial.assignment))
    columns = {}
    for name in study.objective_names:
        known = [trial for trial in usable if name in trial.objectives]
        if len(known) >= MINIMUM_TRIALS:
            values = _on_scale(name, np.array([trial.objectives[name] for trial in known]))
            columns[name] = [_explained(axis, known, values) for axis in axes]
    table = pd.DataFrame(columns, index=axes)
    table = table[table.max(axis=1) > 0]
    return table.loc[table.sum(axis=1).sort_values(ascending=False).index]


def effect_table(study: StudyRecord) -> pd.DataFrame:
    """Return the effect of each choice of each axis on each objective, as a factor or difference.

    The factor is the geometric mean of the trials with that choice over that of the average choice
    (the geometric mean of the choices' means), among trials that have the axis. 0.9 means 10 %
    less. An objective that is compared by differences has the difference of arithmetic means. Axes
    and trials are those of `importance_table`, in its order.

    Returns:
        Columns `axis`, `choice`, `trials`, and per objective its name, `NAME_low` and `NAME_high`:
        the effect and its 95 % confidence interval by Student's t, with one variance for all
        choices.
    """
    importance = importance_table(study)
    usable = _judged(study)
    rows = []
    for axis in importance.index:
        active = [trial for trial in usable if axis in trial.assignment]
        labels, groups = _groups([trial.assignment[axis] for trial in active])
        found = {
            name: _effects(name, [t.objectives.get(name, np.nan) for t in active], groups)
            for name in importance.columns
        }
        for code in np.argsort([label.order for label in labels], kind="stable"):
            row: dict[str, object] = {"axis": axis, "choice": labels[code].text}
            row["trials"] = int((groups == code).sum())
            for name, effects in found.items():
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), effects[code], strict=True))
            rows.append(row)
    kinds = [f"{name}{end}" for name in importance.columns for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["axis", "choice", "trials", *kinds])


def format_effect(row: Mapping[Any, Any], name: str) -> str:
    """Format an effect on an objective in a row of `effect_table`; brackets: not significant."""
    objective = OBJECTIVES[name]
    text = format_change(row[name])
    if not objective.by_factor:
        text = format_signed(objective, row[name])
    if text == MISSING:
        return text
    none = 1 if objective.by_factor else 0
    sure = row[f"{name}_low"] > none or row[f"{name}_high"] < none
    return text if sure else f"({text})"


def _judged(study: StudyRecord) -> list[TrialRecord]:
    return [trial for trial in study.trials if trial.assignment and not trial.reference]


def _explained(axis: str, trials: Sequence[TrialRecord], values: Array) -> float:
    total = float(((values - values.mean()) ** 2).sum())
    active = [index for index, trial in enumerate(trials) if axis in trial.assignment]
    _, groups = _groups([trials[index].assignment[axis] for index in active])
    count, value = len(set(groups.tolist())), values[active]
    if total <= 0 or count < 2 or len(value) <= count:
        return 0.0
    sizes = np.bincount(groups)
    means = np.bincount(groups, weights=value) / sizes
    within = float(((value - means[groups]) ** 2).sum())
    between = float((sizes * (means - value.mean()) ** 2).sum())
    by_chance = (count - 1) * within / (len(value) - count)
    return float(np.clip((between - by_chance) / total, 0, 1))


def _on_scale(name: str, values: Array) -> Array:
    """Return the logarithms of positive values that are compared by factors, or the values."""
    scaled: Array = np.log(values) if by_factor(name) else values
    return scaled


def _effects(name: str, known_values: Sequence[float], groups: npt.NDArray[np.intp]) -> Array:
    """Return (choices, 3): each choice's effect, low and high; NaN where it is not known."""
    from scipy.stats import t

    values = np.array(known_values)
    count, known = int(groups.max()) + 1, np.isfinite(values)
    found = np.full((count, 3), np.nan)
    scaled, groups = _on_scale(name, values[known]), groups[known]
    sizes = np.bincount(groups, minlength=count)
    there = sizes > 0
    if there.sum() < 2:
        return found
    means = np.bincount(groups, weights=scaled, minlength=count) / np.maximum(sizes, 1)
    free = len(scaled) - int(there.sum())
    squares = float(((scaled - means[groups]) ** 2).sum())
    variance, share = squares / free if free else np.inf, 1 / there.sum()
    # Standard error of one choice's mean minus the mean of all choices' means.
    own, all_of_them = 1 / sizes[there], (1 / sizes[there]).sum()
    error = np.sqrt(variance * ((1 - 2 * share) * own + share**2 * all_of_them))
    reach = t.ppf(0.975, free) * error if free else np.full(len(own), np.inf)
    effect = means[there] - means[there].mean()
    bounds = np.array([effect, effect - reach, effect + reach])
    found[there] = (np.exp(np.clip(bounds, -700, 700)) if by_factor(name) else bounds).T
    return found


@dataclass(frozen=True)
class _Label:
    """The text of a choice or of a group of values, and its place in the order."""

    text: str
    order: float


def _groups(values: Sequence[object]) -> tuple[list[_Label], npt.NDArray[np.intp]]:
    """Return the labels of groups and each value's group number, from 0.

    A group has equal values, or is a quartile of many different numbers.
    """
    distinct = dict.fromkeys(values)
    numbers = [v for v in distinct if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(distinct) > _MANY:
        column = pd.Series(np.asarray(values, dtype=np.float64))
        parts = pd.qcut(column, _PARTS, labels=False, duplicates="drop").to_numpy()
        labels = []
        for part in range(int(parts.max()) + 1):
            low, high = column[parts == part].min(), column[parts == part].max()
            labels.append(_Label(f"{low:g}" if low == high else f"{low:g} to {high:g}", low))
        return labels, parts.astype(np.intp)
    codes = {value: code for code, value in enumerate(distinct)}
    labels = [_label(value, code) for value, code in codes.items()]
    return labels, np.array([codes[value] for value in values], dtype=np.intp)


def _label(value: object, code: int) -> _Label:
    if value is None:
        return _Label("none", -np.inf)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    text = str(value).replace("_", " ") if isinstance(value, str) else str(value)
    return _Label(text, float(value) if numeric else code)  # type: ignore[arg-type]
