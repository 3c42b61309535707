"""Data of the figures: pure functions from a study's record to pandas tables."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from nas.objectives import hypervolume, minimised, nondominated, sign_of
from studies.pages.style import UNLEARNED
from studies.record.floor_words import floor_clauses, floor_values
from studies.record.formats import format_value
from studies.record.rate import latent_words
from studies.record.records import StudyRecord, TrialRecord
from studies.record.tables import spread

Array = npt.NDArray[np.float64]

POINT_LIMIT = 2000
"""Maximum number of points of a plot, beyond which dominated ones are left out.

Browsers draw this many without delay.
"""

CURVE_LIMIT = 40

SHAPE_AXES = ("Latent size", "Encoder stages", "Layers", "Widest stage", "Seed width")


def points_table(study: StudyRecord, limit: int = POINT_LIMIT) -> pd.DataFrame:
    """Return one row per plotted architecture, dominated ones first.

    Columns: `name`, `kind` (`dominated`, `front`, `has not learned`, or the reference's name),
    `front`, `learned`, `contended`,
    each objective with `<objective>_low` and `<objective>_high` (NaN: no interval), and the
    `SHAPE_AXES`. With more than `limit` rows, an even selection of the dominated points is kept.
    """
    front = {trial.number for trial in study.front}
    rows = [_point(study, trial, trial.number in front) for trial in plotted(study, limit)]
    columns = ["name", "kind", "front", "learned", "contended", *SHAPE_AXES]
    for name in study.objective_names:
        columns += [name, f"{name}_low", f"{name}_high"]
    return pd.DataFrame(rows, columns=columns)


def plotted(study: StudyRecord, limit: int = POINT_LIMIT) -> list[TrialRecord]:
    """Return the trials that the plots show, dominated ones first.

    With more than `limit` trials, an even selection of the dominated ones is kept. The front, the
    references and the worst trial in each objective, which set the axes' ranges, are always kept.
    """
    always = {trial.number for trial in (*study.front, *study.references.values())}
    kept = [trial for trial in study.complete if trial.number in always]
    dominated = [trial for trial in study.complete if trial.number not in always]
    if len(study.complete) > limit:
        worst = {max(study.complete, key=_value(name)).number for name in study.objective_names}
        worst -= always
        others = [trial.number for trial in dominated if trial.number not in worst]
        shown = worst.union(spread(others, limit - len(kept) - len(worst)))
        dominated = [trial for trial in dominated if trial.number in shown]
    return [*dominated, *kept]


def drawn_share(study: StudyRecord, limit: int = POINT_LIMIT) -> str:
    """Return a sentence on how many architectures are drawn; empty if all are."""
    if len(study.complete) <= limit:
        return ""
    return (
        f"{len(plotted(study, limit)):,} of {len(study.complete):,} evaluated architectures are "
        "drawn: the front, the references and an even selection of the others."
    )


def hovers(study: StudyRecord, limit: int = POINT_LIMIT) -> dict[str, str]:
    """Return the tooltip (HTML, escaped) of every plotted trial by name."""
    return {trial.name: hover(study, trial) for trial in plotted(study, limit)}


def staircase(points: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return the learned points not dominated in `x` and `y`, the best in `x` first."""
    points = points[points["learned"]]
    best = points[nondominated(minimised(points[[x, y]].to_numpy(), (x, y)))]
    return best[[x, y]].drop_duplicates().sort_values(x, ascending=sign_of(x) > 0)


def floor_lines(study: StudyRecord, name: str) -> dict[str, float]:
    """Return the floors to draw in a plot of an objective or metric, by their labels.

    These are the mean image and the PCAs of the smallest and the largest latent size among the
    front and the references: more lines would hide the points. Tooltips have the others.
    """
    shown = [*study.front, *study.references.values()]
    labels = list(found := floor_values(study, shown, name))
    return {label: found[label] for label in dict.fromkeys([*labels[:2], *labels[-1:]])}


def hypervolume_table(study: StudyRecord) -> pd.DataFrame:
    """Return the hypervolume after each trial that ended.

    Columns: `trial` (number of trials that have ended), `name`, `training_s` (cumulative seconds
    of training, failed trials included) and `hypervolume`, the share of the box from `study.ideal`
    to `study.nadir` that is dominated (0 to 1).
    """
    rows, spent, volume = [], 0.0, 0.0
    front = np.empty((0, len(study.objectives)))
    for count, trial in enumerate((t for t in study.trials if t.state != "running"), start=1):
        spent += sum(epoch.get("duration_s", 0.0) for epoch in trial.history)
        counts = trial.state == "complete" and not study.unlearned(trial)
        point = study.minimised([trial] if counts else [])
        if len(point) and not (front <= point).all(axis=1).any():
            front = np.vstack([front[~(point <= front).all(axis=1)], point])
            volume = hypervolume(front, study.nadir, study.ideal)
        rows.append((count, trial.name, spent, volume))
    return pd.DataFrame(rows, columns=["trial", "name", "training_s", "hypervolume"])


def hypervolume_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at which the hypervolume changes, and the last one.

    Drawn as a step function they give the same line as the whole table.
    """
    changed = table["hypervolume"].diff().ne(0) | (table.index == table.index.max())
    kept: pd.DataFrame = table[changed]
    return kept


def reference_hypervolume(study: StudyRecord) -> float | None:
    """Return the hypervolume of the reference models alone; None if none has learned."""
    references = list(study.yardsticks.values())
    return study.hypervolume(references) if references else None


def curve_table(study: StudyRecord, limit: int = CURVE_LIMIT) -> pd.DataFrame:
    """Return the training history of the references and the front, one row per trial and epoch.

    An even selection of at most `limit` members of the front is included. Columns: `name`, `kind`
    (the reference's name or `front`), `epoch`, `train_loss`, `validation_loss`
    (both the total loss) and `objective`, the first trained objective (NaN where it has none).
    """
    name = next((objective.name for objective in study.trained), "")
    members = [trial for trial in study.front if not trial.reference]
    rows = [
        (
            trial.name,
            trial.reference or "front",
            epoch["epoch"],
            epoch.get("train_loss", np.nan),
            epoch.get("validation_loss", np.nan),
            epoch.get(name, np.nan),
        )
        for trial in (*spread(members, limit), *study.references.values())
        for epoch in trial.history
    ]
    columns = ["name", "kind", "epoch", "train_loss", "validation_loss", "objective"]
    return pd.DataFrame(rows, columns=columns)


def _value(name: str) -> Callable[[TrialRecord], float]:
    return lambda trial: sign_of(name) * trial.objectives[name]


def _point(study: StudyRecord, trial: TrialRecord, on_front: bool) -> dict[str, object]:
    encoder, decoder = trial.architecture.encoder, trial.architecture.decoder
    stages = (*encoder.stages, *decoder.stages)
    learned = not study.unlearned(trial)
    kind = "front" if on_front else "dominated" if learned else UNLEARNED
    row: dict[str, object] = {
        "name": trial.name,
        "kind": trial.reference or kind,
        "front": on_front,
        "learned": learned,
        "contended": trial.contended,
    }
    shape = (
        trial.architecture.latent_size,
        len(encoder.stages),
        sum(stage.layers for stage in stages),
        max(stage.width for stage in stages),
        decoder.seed_width,
    )
    row.update(zip(SHAPE_AXES, shape, strict=True))
    for name in study.objective_names:
        row[name] = trial.objectives[name]
        row[f"{name}_low"], row[f"{name}_high"] = trial.intervals.get(name, (np.nan, np.nan))
    return row


def hover(study: StudyRecord, trial: TrialRecord) -> str:
    """Return a trial's tooltip (HTML, escaped): its name, objectives, latent and architecture."""
    lines = [f"<b>{html.escape(trial.name)}</b>"]
    for objective in (*study.objectives, *study.recorded):
        value = format_value(objective, trial.objectives[objective.name])
        if objective.name in trial.intervals:
            low, high = (format_value(objective, v) for v in trial.intervals[objective.name])
            value += f" ({low} to {high})"
        lines.append(f"{objective.title}: {value}")
    if study.noise and not trial.confirmed:
        lines.append("<i>loss of one training, not confirmed</i>")
    lines += [html.escape(words) for words in floor_clauses(study, trial)]
    if reason := study.unlearned(trial):
        lines.append(f"<i>has not learned: {html.escape(reason)}</i>")
    if trial.contended:
        lines.append("<i>latency measured on a busy machine</i>")
    if latent := latent_words(study, trial):
        lines.append(", ".join(latent))
    for part in trial.architecture.summary.split(" | "):
        lines += [html.escape(line) for line in textwrap.wrap(part, 46)]
    return "<br>".join(lines)
