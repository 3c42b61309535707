"""The results of a study as text and tables: headline, notes, comparisons.

All functions depend only on the record. Pandas is imported only where a table is made.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from nas.objectives import OBJECTIVES, TRAINED_OBJECTIVE, Cost, Objective
from search_spaces.references import REFERENCES
from studies.record.comparison import (
    Comparison,
    champion,
    compare,
    dominators,
    found,
    found_learned,
)
from studies.record.confirmed import confirmation_notes, unconfirmed_claim
from studies.record.floor_words import unlearned_note
from studies.record.formats import (
    counted,
    describe_gain,
    format_difference,
    format_gain,
    format_value,
    listed,
    named,
    noun,
    reason_kind,
)
from studies.record.rate import DIVERGED, rate_notes
from studies.record.records import StudyRecord, TrialRecord
from studies.record.table_files import table_of
from studies.record.verdict import in_words, violations

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")

_STATES: dict[str | None, str] = {
    None: "is not part of this study",
    "failed": "failed",
    "rejected": "was rejected",
    "stopped": "was stopped early",
    "running": "is not finished",
}
_QUALITY = ("psnr", "ssim")
"""Metrics whose names contain one of these are shown beside the objectives."""


def front_found(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the members of the front that are not reference models."""
    return tuple(trial for trial in study.front if trial.reference is None)


def compared_members(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the trials to compare with the references: the front, or all retrained ones.

    Those that have not learned are left out.
    """
    return found_learned(study) if "retrained" in study.config else front_found(study)


def spread(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most `limit` of `items`, evenly spaced, including the first and the last."""
    if len(items) <= limit:
        return list(items)
    if limit < 2:
        return list(items[: max(limit, 0)])
    step = (len(items) - 1) / (limit - 1)
    return [items[round(place * step)] for place in range(limit)]


def study_headline(study: StudyRecord) -> str:
    """Return the study's result in one sentence, with names of references in backticks."""
    candidates = found(study)
    if not candidates:
        return _nothing_found(study)
    architectures = f"{counted(len(candidates), 'architecture')} found"
    if not found_learned(study):
        return f"None of {architectures} has learned, so there is no result to compare."
    if not study.yardsticks:
        missing = "has learned" if study.references else "is complete"
        return (
            f"{len(front_found(study))} of {architectures} are on the front; no reference model "
            f"{missing}, so there is nothing to compare them with."
        )
    main, *others = study.yardsticks.values()
    best = champion(study, main)
    assert best is not None, "a candidate has learned"
    count = len(dominators(study, main))
    asides = [
        f"{len(dominators(study, o)) or 'none'} dominate{'s' * (len(dominators(study, o)) < 2)} "
        f"`{o.reference}`"
        for o in others
    ]
    unlearned = study.references.keys() - study.yardsticks.keys()
    asides += [f"`{name}` has not learned" for name in sorted(unlearned)]
    aside = f" ({', '.join(asides)})" if asides else ""
    return (
        f"{f'{count:,}' if count else 'None'} of {architectures} "
        f"dominate{'s' if count < 2 else ''} `{main.reference}` in {_all_objectives(study)}"
        f"{aside}{unconfirmed_claim(study)}; "
        f"the {'best' if count else 'closest'}, {best.name}, has {_changes(study, best, main)}."
    )


def study_notes(study: StudyRecord) -> list[str]:
    """Return notes for the reader: how complete the study is, and its failures."""
    notes = []
    if study.exhausted:
        notes.append(
            f"All {study.space_distinct:,} distinct architectures of space "
            f"`{study.space_name}` were evaluated: there is nothing left to search."
        )
    attempts = {trial.reference: trial for trial in study.trials if trial.reference}
    for name in dict.fromkeys([*REFERENCES, *(n for n in attempts if n)]):
        if name in study.references:
            continue
        attempt = attempts.get(name)
        state = (
            _STATES.get(attempt.state, "is incomplete") if attempt else "is not part of this study"
        )
        reason = f": {attempt.reason}" if attempt is not None and attempt.reason else ""
        notes.append(f"Reference `{name}` {state}{reason}. Comparisons with it are left out.")
    notes += filter(None, [unlearned_note(study)])
    notes += [*confirmation_notes(study), *_limit_notes(study), *_diverged(study)]
    notes += rate_notes(study, compared_members(study))
    if damage := damage_note(study):
        notes.append(damage)
    if retrained := study.config.get("retrained"):
        seeds, rates = len(retrained["seeds"]), retrained["learning_rates"]
        notes.append(
            f"Trained again {_counted_seeds(seeds)}{_rates_kept(study, rates)}: losses are means "
            f"over the seeds on {retrained['judged_on']}, which neither the search nor the choice "
            "of an epoch used. "
            "Costs and latencies are those of the searched study."
        )
    if study.own:
        parts = [
            f"`{name}` ({part}, source {source or 'unknown'})"
            for name, (part, source) in study.own.items()
        ]
        notes.append(f"Not part of this package: {listed(parts)}.")
    if study.mixed:
        notes.append(
            "Latencies of different environments are mixed, as --mix-environments allows: "
            f"{'; '.join(study.mixed)}."
        )
    return notes


def damage_note(study: StudyRecord) -> str | None:
    """Return a note on the trials that are left out because they are damaged; None if none is."""
    if not study.damaged:
        return None
    first, *others = study.damaged
    more = f"; {len(others)} more are damaged" if others else ""
    return (
        f"Left out: {first}{more}. Restore the storage from a copy to have "
        f"{'these trials' if others else 'this trial'} again."
    )


def _limit_notes(study: StudyRecord) -> list[str]:
    """Return notes on the trials whose verdict changed with the limits, or cannot be given."""
    over = [trial for trial in study.trials if trial.trained and trial.state == "rejected"]
    within = [trial for trial in study.trials if trial.state == "open"]
    notes = []
    if over:
        notes.append(
            f"{counted(len(over), 'trained architecture')} {_is_are(over)} over the limits "
            f"({in_words(study.limits)}) and left out: {named([trial.name for trial in over])}."
        )
    if within:
        notes.append(
            f"{counted(len(within), 'candidate')} that earlier limits rejected {_is_are(within)} "
            f"within those of now ({in_words(study.limits)}): the search may evaluate "
            f"{'it' if len(within) == 1 else 'them'} again."
        )
    for name in study.limits:
        unknown = [trial for trial in found(study) if name not in trial.objectives]
        if unknown:
            notes.append(
                f"The limit {name} does not apply to {counted(len(unknown), 'architecture')} whose "
                f"{name} was not recorded: {named([trial.name for trial in unknown])}."
            )
    return notes


def _is_are(trials: Sequence[TrialRecord]) -> str:
    return "is" if len(trials) == 1 else "are"


def _diverged(study: StudyRecord) -> list[str]:
    """Return a note on each shown trial whose KL term dominates its total loss."""
    shown = {trial.name: trial for trial in (*study.references.values(), *study.front)}
    found = []
    for trial in shown.values():
        loss, total = trial.objectives.get(TRAINED_OBJECTIVE), trial.metrics.get("total_loss")
        if loss and total and total > DIVERGED * loss:
            found.append(
                f"The training of `{trial.name}` diverged: its total loss is {total:,.3g}, of "
                f"which reconstruction is {loss:.3g}. A lower learning rate may do better; until "
                "then, do not compare its loss with others."
            )
    return found


def quality_metrics(study: StudyRecord) -> list[str]:
    """Return the image-quality metrics any complete trial has, except objectives, sorted."""
    known = {name for trial in study.complete for name in trial.metrics}
    known -= set(study.objective_names)
    return sorted(n for n in known if any(word in n for word in _QUALITY))


def dominance_table(study: StudyRecord) -> pd.DataFrame:
    """Count trials by the number of objectives in which they are better than each reference.

    Trials and references that have not learned are left out.

    Returns:
        One row per reference; columns `dominate`, then `better_in_<k>` for k from the number of
        objectives to 0.
    """
    import pandas as pd

    rows = {}
    for name, reference in study.yardsticks.items():
        compared = [compare(study, trial, reference) for trial in found_learned(study)]
        counts = Counter(one.better for one in compared)
        total = len(study.objectives)
        row = {"dominate": len(dominators(study, reference))}
        row.update({f"better_in_{k}": counts[k] for k in range(total, -1, -1)})
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def setback_table(study: StudyRecord) -> pd.DataFrame:
    """Count rejected, failed and unfinished trials by cause: `state`, `cause`, `count`.

    Reasons that differ only in their numbers count as one cause.
    """
    import pandas as pd

    counts = Counter((trial.state, reason_kind(trial.reason)) for trial in setbacks(study))
    rows = [(*key, count) for key, count in counts.most_common()]
    return pd.DataFrame(rows, columns=["state", "cause", "count"])


def needs(study: StudyRecord, cost: Cost) -> bool:
    """Return whether an objective or a limit of the study has this kind of cost."""
    return any(OBJECTIVES[name].cost == cost for name in study.wanted if name in OBJECTIVES)


def setbacks(study: StudyRecord) -> tuple[TrialRecord, ...]:
    """Return the trials that are not complete, in order."""
    return tuple(trial for trial in study.trials if trial.state != "complete")


def repeats(study: StudyRecord) -> int:
    """Return the number of proposals of known architectures."""
    return sum(trial.repeats for trial in study.trials)


def front_rows(study: StudyRecord) -> list[dict[str, object]]:
    """Return a row for each reference and each compared member of the front, with all digits."""
    front = {trial.number for trial in study.front}
    columns = (*study.objectives, *study.recorded)
    return [
        {
            "model": trial.name,
            "number": trial.number,
            "front": trial.number in front,
            "unlearned": study.unlearned(trial),
            **{one.name: trial.objectives.get(one.name) for one in columns},
            "architecture": trial.architecture.summary,
        }
        for trial in (*study.references.values(), *compared_members(study))
    ]


def trials_table(study: StudyRecord) -> pd.DataFrame:
    """Return the table for export: one row per trial, one column per value."""
    return table_of([_export_row(study, trial) for trial in study.trials])


def _export_row(study: StudyRecord, trial: TrialRecord) -> dict[str, object]:
    names = ("number", "state", "reference", "reason", "digest", "repeats", "contended")
    row: dict[str, object] = {name: getattr(trial, name) for name in names}
    row |= {"unlearned": study.unlearned(trial), **trial.objectives, **trial.metrics}
    for name, (low, high) in trial.intervals.items():
        row |= {f"{name}_low": low, f"{name}_high": high}
    row |= {f"{step}_duration_s": seconds for step, seconds in trial.findings.timings_s.items()}
    row |= {f"axis:{name}": value for name, value in trial.assignment.items()}
    # Lists and dicts as JSON text: the same cell in CSV, Parquet and JSON.
    row["history"] = json.dumps(list(map(dict, trial.history)))
    row["architecture"] = json.dumps(trial.architecture.to_dict())
    return row


def _changes(study: StudyRecord, trial: TrialRecord, reference: TrialRecord) -> str:
    """`12.3x fewer parameters and 3.1x lower latency at 1 % lower reconstruction loss`."""
    compared = compare(study, trial, reference)
    changes = {objective: change_of(objective, compared) for objective in study.objectives}
    learned = [text for objective, text in changes.items() if objective.cost == "training"]
    costs = [text for objective, text in changes.items() if objective.cost != "training"]
    return " at ".join(filter(None, (listed(costs), listed(learned))))


def change_of(objective: Objective, compared: Comparison) -> str:
    """Describe how a trial compares in one objective; "about" marks a contended latency."""
    if compared.tied(objective.name):
        return f"no certain change in {noun(objective)}"
    change = describe_gain(objective, compared.gain(objective.name))
    return f"about {change}" if compared.contended and objective.cost == "device" else change


def gain_of(objective: Objective, compared: Comparison) -> str:
    """Format a factor or a difference: `3.10x`, `1.25 dB higher`, or `tied`."""
    if compared.tied(objective.name):
        return "tied"
    gain = compared.gain(objective.name)
    if objective.by_factor:
        return format_gain(gain, objective.better)
    return format_difference(objective, -objective.sign * gain)


def _nothing_found(study: StudyRecord) -> str:
    """Explain why a study has no complete candidate: limits, failures, or no trial yet."""
    candidates = [trial for trial in study.trials if trial.reference is None]
    failed = [t for t in (candidates if study.complete else study.trials) if t.state == "failed"]
    parts = [*_rejections(study, [t for t in candidates if t.state == "rejected"])]
    if failed:
        what = "candidate" if study.complete else "architecture"
        everyone = len(failed) == len(candidates if study.complete else study.trials)
        parts.append(_failures(failed, what, everyone))
    if parts:
        return ". ".join(parts) + "."
    if study.complete:
        return "Only reference models have been evaluated; no architecture was found yet."
    return "No architecture has been evaluated yet."


def _rejections(study: StudyRecord, rejected: Sequence[TrialRecord]) -> list[str]:
    """Return a sentence per limit that rejected candidates, with the smallest value seen."""
    limits, causes = study.limits, dict[str, list[TrialRecord]]()
    for trial in rejected:
        excess = violations(limits, trial.findings).items()
        over = (name for name, by in excess if by > 0 and name in trial.objectives)
        causes.setdefault(next(over, ""), []).append(trial)
    sentences = []
    for name, trials in causes.items():
        were = "was" if len(trials) == 1 else "were"
        text = f"{counted(len(trials), 'candidate')} {were} rejected by "
        if not name:
            sentences.append(f"{text}a limit: {trials[0].reason or 'no reason recorded'}")
            continue
        smallest = min(t.objectives[name] for t in trials)
        seen = format_value(OBJECTIVES[name], smallest)
        limit = f"the limit {name} <= {limits[name]:g}"
        sentences.append(f"{text}{limit}; the smallest seen is {seen}")
    return sentences


def _failures(failed: Sequence[TrialRecord], what: str, everyone: bool) -> str:
    kinds = Counter(reason_kind(trial.reason) for trial in failed)
    kind, count = kinds.most_common(1)[0]
    reason = next(t.reason for t in failed if reason_kind(t.reason) == kind)
    cause = (reason or "no reason recorded").rstrip(".")
    number = f"{'All ' if everyone and len(failed) > 1 else ''}{counted(len(failed), what)}"
    if len(kinds) == 1:
        return f"{number} failed: {cause}"
    return f"{number} failed, most often ({count}) for this reason: {cause}"


def _rates_kept(study: StudyRecord, rates: Sequence[float]) -> str:
    if len(rates) < 2:
        return ""
    kept: dict[str, list[str]] = {}
    for trial in study.complete:
        kept.setdefault(f"{trial.metrics['learning_rate']:g}", []).append(trial.name)
    chosen = "; ".join(f"{rate} for {', '.join(names)}" for rate, names in kept.items())
    tried = ", ".join(f"{rate:g}" for rate in rates)
    return f", at the learning rate of {tried} that gave the lowest validation loss ({chosen})"


def _counted_seeds(count: int) -> str:
    return "once" if count == 1 else f"with {count} seeds each"


def _all_objectives(study: StudyRecord) -> str:
    count = len(study.objectives)
    return "both objectives" if count == 2 else f"all {count} objectives"
