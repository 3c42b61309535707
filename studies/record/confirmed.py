"""What the confirmation of a study says: its models, the luck of the search, notes."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from nas.objectives import Objective
from studies.record.formats import (
    counted,
    format_duration,
    format_percent,
    format_value,
    listed,
    noun,
)
from studies.record.records import StudyRecord, TrialRecord
from studies.record.table_files import table_of
from studies.record.trial import IN_SEARCH, ON_TEST

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 8
"""Maximum number of models that a note names."""


def the_loss(study: StudyRecord) -> Objective | None:
    """Return the study's first trained objective; None if it has none."""
    return next(iter(study.trained), None)


def confirmed_models(study: StudyRecord) -> list[TrialRecord]:
    """Return the models with further trainings of the search's own budget, references first."""
    known = [trial for trial in study.complete if trial.confirmed and trial.runs]
    return sorted(known, key=lambda trial: (trial.reference is None, trial.number))


def unconfirmed_front(study: StudyRecord) -> list[TrialRecord]:
    """Return the members of the front whose loss is that of one training."""
    return [trial for trial in study.front if not trial.confirmed]


def luck(study: StudyRecord) -> float | None:
    """Return by how much the losses that the search saw are too good (the "winner's curse").

    Over the confirmed candidates it is the geometric mean of confirmed over observed loss, or of
    observed over confirmed value of what is maximised, minus 1: 0.02 is 2 %. Of an objective that
    is compared by differences, it is the mean difference, in its unit. References do not count: no
    loss chose them. None without candidates.
    """
    loss = the_loss(study)
    models = [trial for trial in confirmed_models(study) if trial.reference is None]
    if loss is None or not models:
        return None
    pairs = [(trial.observed(loss.name), trial.objectives[loss.name]) for trial in models]
    if not loss.by_factor:
        return fmean(loss.gain(seen, confirmed) for seen, confirmed in pairs)
    return math.expm1(fmean(math.log(loss.gain(seen, confirmed)) for seen, confirmed in pairs))


def confirmation_table(study: StudyRecord) -> pd.DataFrame:
    """Return one row per confirmed model, references first.

    Columns: `name`, `kind` (`front`, `dominated` or the reference's name), `seeds`, `observed`
    (the loss that the search saw), `confirmed` (the mean), `low`, `high` (its 95 % interval) and
    `test` (the mean on the test images, NaN if not known).
    """
    loss, front = the_loss(study), {trial.number for trial in study.front}
    rows = []
    for trial in confirmed_models(study) if loss else ():
        assert loss is not None
        low, high = trial.intervals.get(loss.name, (math.nan, math.nan))
        on_front = "front" if trial.number in front else "dominated"
        rows.append(
            {
                "name": trial.name,
                "kind": trial.reference or on_front,
                "seeds": len(trial.samples[loss.name]),
                "observed": trial.observed(loss.name),
                "confirmed": trial.objectives[loss.name],
                "low": low,
                "high": high,
                "test": trial.metrics.get(f"{loss.name}{ON_TEST}", math.nan),
            }
        )
    return table_of(rows)


def confirmation_notes(study: StudyRecord) -> list[str]:
    """Return notes for the reader: the noise, the luck of the search, what is not confirmed."""
    noise, loss = study.noise, the_loss(study)
    if loss is None:
        return []
    notes = _failures(study)
    if noise is None:
        return notes
    notes.insert(0, (
        f"From seed to seed the {noun(loss)} of a model differs by "
        f"{_amount(noise.deviation, loss)} (standard deviation). This rests on "
        f"{noise.trainings} trainings of {counted(noise.models, 'model')} "
        f"({counted(noise.freedom, 'degree')} of freedom); further trainings took "
        f"{format_duration(noise.duration_s)}. Losses are compared by a test of their difference: "
        "all claims together are wrong with a probability of at most 5 %, and what does not "
        "exceed the noise is tied."
    ))  # fmt: skip
    return [*notes, *_luck(study, loss), *_unconfirmed(study)]


def _amount(value: float, loss: Objective) -> str:
    """Format a share of a loss, or a difference where it is compared by differences."""
    return format_percent(value) if loss.by_factor else f"{value:.3g} {loss.unit}".rstrip()


def _luck(study: StudyRecord, loss: Objective) -> list[str]:
    excess = luck(study)
    if excess is None:
        return []
    count = sum(trial.reference is None for trial in confirmed_models(study))
    too_good = loss.better.removesuffix("er") if excess >= 0 else loss.worse.removesuffix("er")
    share = f"{_amount(abs(excess), loss)} too {too_good}"
    if count == 1:
        seen = f"The {noun(loss)} that the search saw of the best candidate was {share}."
    else:
        seen = (
            f"Of the {count} best candidates the search saw values of {noun(loss)} that were on "
            f"average {share}."
        )
    return [f"{seen} Those here are means over further seeds."]


def _unconfirmed(study: StudyRecord) -> list[str]:
    members = [trial for trial in unconfirmed_front(study) if trial.reference is None]
    if not members or not confirmed_models(study):
        return []
    named = listed([trial.name for trial in members[:_NAMED]])
    more = f" and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    command = " ".join(f"--trial {trial.number}" for trial in members[:_NAMED])
    what = "member of the front is" if len(members) == 1 else "members of the front are"
    return [
        f"{len(members)} {what} not confirmed, with the loss of one training: {named}{more}. To "
        f"confirm: `nas study confirm {study.name} {command}`."
    ]


def _failures(study: StudyRecord) -> list[str]:
    failed = [
        f"{trial.name} with seed {run.seed} ({run.reason})"
        for trial in study.complete
        for run in trial.runs
        if run.reason is not None
    ]
    if not failed:
        return []
    more = f"; {len(failed) - 3} more failed" if len(failed) > 3 else ""
    return [f"Further trainings failed: {'; '.join(failed[:3])}{more}."]


def best_weights(trial: TrialRecord, name: str) -> int | None:
    """Return the further seed whose weights are the best by validation; None: the search's are.

    Args:
        trial: A complete trial.
        name: The metric that decides, lower is better: the total loss on the validation images.
    """
    known: dict[int | None, float] = {
        run.seed: run.validation[name] for run in trial.runs if name in run.validation
    }
    own = trial.metrics.get(f"{name}{IN_SEARCH}")
    if own is not None:
        known[None] = own
    return min(known, key=known.__getitem__) if known else None


def shown_value(trial: TrialRecord, objective: Objective) -> str:
    """Format an objective's value, a loss with half its 95 % interval if its noise is known."""
    text = format_value(objective, trial.objectives[objective.name])
    bounds = trial.intervals.get(objective.name)
    if objective.cost != "training" or bounds is None:
        return text
    return f"{text} \N{PLUS-MINUS SIGN}{(bounds[1] - bounds[0]) / 2:.4f}"


def unconfirmed_claim(study: StudyRecord) -> str:
    """Return the words by which a claim says that its losses are not confirmed, or ""."""
    if the_loss(study) is None or study.noise is not None:
        return ""
    return ", by losses of one training each, not confirmed"
