"""What the stages of a compression say: a table of each, and sentences on whether it pays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from nas.objectives import OBJECTIVES, TRAINED_OBJECTIVE, Objective, latency_in, set_up_of
from studies.record.compressed import Costs, Lowered, Stage, Training, tied
from studies.record.deployed import format_cost
from studies.record.formats import (
    MISSING,
    counted,
    describe_change,
    format_bytes,
    format_duration,
    format_percent,
    format_value,
    listed,
    named,
)
from studies.record.noise import Mean
from studies.record.records import StudyRecord

_COSTS = ("params", "macs")


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and a second line with an interval, or ""."""

    text: str
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """The row of one role.

    Attributes:
        name: What the role is.
        is_result: Whether it is the result of its stage.
        cells: The values, in the order of `StageWords.heads`.
    """

    name: str
    is_result: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Verdict:
    """A sentence on a result; `pays` is None if it says neither that it pays nor that it does not.

    Attributes:
        text: The sentence.
        pays: Whether the result is better than the control.
    """

    text: str
    pays: bool | None


@dataclass(frozen=True)
class StageWords:
    """A stage for people.

    Attributes:
        stage: The stage.
        heads: Titles of the columns after the first.
        rows: The rows of its table.
        verdicts: What it has shown.
    """

    stage: Stage
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]


def stage_words(study: StudyRecord, stage: Stage) -> StageWords:
    """Return a stage of a study as texts."""
    costs = _cost_columns(stage)
    lowered = any(one.lowered for one in stage.trainings)
    heads = ["Models"] if lowered else ["Trainings", "Epochs"]
    heads += [f"{o.title}, {part}" for o in study.trained for part in ("validation", "test")]
    heads += [one.title for one in costs]
    heads += ["Cost of the loss", "Files"] if lowered else ["Training time"]
    rows = [
        _row(study, stage, role, found, costs, lowered)
        for role in stage.words.roles
        if (found := stage.of(role))
    ]
    return StageWords(stage, tuple(heads), tuple(rows), tuple(_verdicts(study, stage)))


def _cost_columns(stage: Stage) -> list[Objective]:
    latencies = [name for name in stage.costs.values if set_up_of(name) is not None]
    return [OBJECTIVES[name] for name in (*_COSTS, *latencies)]


def _row(
    study: StudyRecord,
    stage: Stage,
    role: str,
    found: Sequence[Training],
    costs: Sequence[Objective],
    lowered: bool,
) -> Row:
    """Return the row of a role; in a stage that lowers the precision nothing was trained."""
    cells = [Cell(f"{len(found)}")]
    cells += [] if lowered else [Cell(_epochs(found))]
    cells += _values(study, stage, role, found, costs)
    if lowered:
        known = [one.lowered for one in found if one.lowered]
        cells.append(_costs_of(known) if known else Cell(MISSING))
        cells.append(Cell(format_bytes(known[0].file_bytes) if known else MISSING))
    else:
        spent_s = sum(one.duration_s for one in found)
        cells.append(Cell(format_duration(spent_s) if spent_s else MISSING))
    return Row(stage.words.roles[role], role == stage.words.result, tuple(cells))


def _costs_of(known: Sequence[Lowered]) -> Cell:
    """Return the mean cost; with its range over several models, or its interval over images."""
    found = [one.cost for one in known]
    low, high = (min(found), max(found)) if len(found) > 1 else known[0].interval
    return Cell(format_cost(fmean(found)), f"{format_cost(low)} to {format_cost(high)}")


def _values(
    study: StudyRecord,
    stage: Stage,
    role: str,
    found: Sequence[Training],
    costs: Sequence[Objective],
) -> list[Cell]:
    cells = list[Cell]()
    for loss in study.trained:
        cells += [_validation(stage, loss, found), _test(loss, found)]
    return cells + [_cost(stage.costs_of(role), one) for one in costs]


def _epochs(found: Sequence[Training]) -> str:
    counts = sorted({one.trained for one in found})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _validation(stage: Stage, loss: Objective, found: Sequence[Training]) -> Cell:
    values = [one.validation[loss.name] for one in found if loss.name in one.validation]
    if not values:
        return Cell(MISSING)
    noise, mean = stage.noise(loss), Mean(fmean(values), len(values))
    if noise is None or len(found) < 2:
        return Cell(format_value(loss, mean.value))
    low, high = (format_value(loss, bound) for bound in noise.interval(mean))
    return Cell(format_value(loss, mean.value), f"{low} to {high}")


def _test(loss: Objective, found: Sequence[Training]) -> Cell:
    values = [one.test[loss.name] for one in found if loss.name in one.test]
    return Cell(format_value(loss, fmean(values)) if values else MISSING)


def _cost(costs: Costs, objective: Objective) -> Cell:
    text = format_value(objective, costs.values.get(objective.name))
    if objective.name not in costs.intervals:
        return Cell(text)
    low, high = (format_value(objective, one) for one in costs.intervals[objective.name])
    busy = ", busy" if costs.contended else ""
    return Cell(text, f"{low.partition(' ')[0]} to {high.partition(' ')[0]}{busy}")


def _verdicts(study: StudyRecord, stage: Stage) -> Iterator[Verdict]:
    """Yield what a stage has shown: its latency, its loss against each control, against a floor."""
    if latency_in("") in stage.costs.over_source:
        yield _faster(stage)
    yield from _lower(stage)
    loss = study.trained[0]
    ours = stage.values(stage.words.result, loss.name)
    for role in stage.words.controls:
        if ours and (theirs := stage.values(role, loss.name)):
            yield _against(stage, loss, role, ours, theirs)
    yield from _unlearned(study, stage)


def _faster(stage: Stage) -> Verdict:
    middle, low, high = stage.costs.over_source[latency_in("")]
    takes = f"it takes {middle:.2f}x [{low:.2f}, {high:.2f}] of the time of the trained model"
    busy = ", measured on a busy machine" if stage.costs.contended else ""
    if low <= 1 <= high:
        return Verdict(f"It is not measurably faster: {takes}{busy}.", None)
    return Verdict(f"It is {'faster' if middle < 1 else 'slower'}: {takes}{busy}.", middle < 1)


def _lower(stage: Stage) -> Iterator[Verdict]:
    """Yield what a lower precision costs and gains, and what stays in floating point."""
    known = [one.lowered for one in stage.of(stage.words.result) if one.lowered]
    if not known:
        return
    cell, most = _costs_of(known), float(stage.settings["bound"])
    worst, within = max(one.worst for one in known), all(one.cost <= most for one in known)
    over = "over the models" if len(known) > 1 else "95 % interval"
    yield Verdict(
        f"It costs {cell.text} of the reconstruction loss ({cell.interval}, {over}), "
        f"{'within' if within else 'more than'} the bound of {format_percent(most)}; the image "
        f"that loses most, {format_cost(worst)}.",
        None if within else False,
    )
    for latency, over_float32 in stage.costs.over_float32.items():
        yield _gain(stage, over_float32, stage.costs.over_source[latency])
    for one, seed in ((t.lowered, t.seed) for t in stage.of(stage.words.result)):
        if one and one.kept:
            yield Verdict(
                f"Sensitive, so in floating point (seed {seed}): {listed(one.kept)}.", None
            )
    if known[0].unserved:
        yield Verdict(
            f"The runtime computes these layers in floating point: {named(known[0].unserved)}.",
            None,
        )


def _gain(
    stage: Stage, float32: tuple[float, float, float], eager: tuple[float, float, float]
) -> Verdict:
    middle, low, high = float32
    busy = ", measured on a busy machine" if stage.costs.contended else ""
    takes = (
        f"it takes {middle:.2f}x [{low:.2f}, {high:.2f}] of the time of float32 in the same "
        f"runtime, and {eager[0]:.2f}x of that of eager PyTorch{busy}"
    )
    if low <= 1 <= high:
        return Verdict(f"It does not make it measurably faster: {takes}.", None)
    pays = middle < 1
    return Verdict(f"It {'pays' if pays else 'does not pay'} in time: {takes}.", pays)


def _against(
    stage: Stage, loss: Objective, role: str, ours: Sequence[float], theirs: Sequence[float]
) -> Verdict:
    means, noise, words = (fmean(ours), fmean(theirs)), stage.noise(loss), stage.words
    control = f"the control ({words.roles[role]})"
    if means[0] == means[1]:
        return Verdict(f"{words.noun} makes no difference to {control}.", None)
    found = f"{words.model} has {describe_change(loss, *means)} than {control}"
    if noise is None:
        return Verdict(f"With one training each, {found}; this may be seed noise.", None)
    if tied(noise, ours, theirs):
        known = counted(noise.trainings, "training")
        return Verdict(f"A tie: {found}, within the seed noise of {known}.", None)
    pays = loss.sign * (means[0] - means[1]) < 0
    return Verdict(f"{words.noun} {'pays' if pays else 'does not pay'}: {found}.", pays)


def _unlearned(study: StudyRecord, stage: Stage) -> Iterator[Verdict]:
    """Yield a sentence if the result is no better than the mean training image."""
    ours = stage.values(stage.words.result, TRAINED_OBJECTIVE)
    if not ours or study.floors is None:
        return
    floor = study.floors.validation.mean.reconstruction
    if fmean(ours) >= floor:
        yield Verdict(
            f"It has not learned: its reconstruction loss, {fmean(ours):.4f}, is not below that of "
            f"the mean training image, {floor:.4f}. Train with more epochs (--epochs).",
            False,
        )
