"""The texts and numbers of the report, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.objectives import Objective, measures_latency, set_up_of
from search_spaces.sizes import size_in_words
from studies.record import tables
from studies.record.comparison import Comparison, champion, compare, dominators, found, ranked
from studies.record.confirmed import confirmation_table, confirmed_models, the_loss
from studies.record.deployed import read_deployed
from studies.record.floor_words import fitted_words, floor_rows
from studies.record.formats import (
    MISSING,
    axis_title,
    directions,
    format_change,
    format_duration,
    format_metric,
    format_value,
    listed,
    noun,
)
from studies.record.records import StudyRecord, TrialRecord
from studies.report.compression import compression_words
from studies.report.rate_words import latent_cells, latent_heads, rate_words

_SETBACK_ROWS = 200
_FRONT_ROWS = 200
"""Maximum numbers of rows in the tables of rejected or failed trials and of the front."""

_METRICS = {"psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}

_LATENTS = {"sample": "of a sample of the latent", "mean": "of the mean of the latent"}
"""What `training.evaluate_at` means; studies without it evaluated a sample."""


def report_words(study: StudyRecord) -> dict[str, Any]:
    """Return the variables of the template, except figures and pictures, by name."""
    return {
        "study": study,
        "description": str(study.config.get("description") or ""),
        "headline": tables.study_headline(study),
        "facts": _facts(study),
        "notes": tables.study_notes(study),
        "tiles": _tiles(study),
        "dominance": _dominance(study),
        "comparison": _comparison(study),
        "unlearned": _unlearned_references(study),
        "front": _front(study),
        "rate": rate_words(study, tables.spread(tables.compared_members(study), _FRONT_ROWS)),
        "trained": tables.needs(study, "training"),
        "directions": directions(study.objectives),
        "maximised": any(o.direction == "maximise" for o in study.objectives),
        "by_difference": listed([noun(o) for o in study.objectives if not o.by_factor]),
        "ideals": listed([_ideal(o) for o in study.objectives if o.ideal]),
        "noun": noun,
        "timed": tables.needs(study, "device"),
        "seeded": "retrained" in study.config,
        "confirmation": _confirmation(study),
        "compressed": compression_words(study),
        "deployed": dict(zip(("models", "damaged"), read_deployed(study.folder), strict=True)),
        "names": {trial.number: trial.name for trial in study.trials},
        "retrained": (study.folder / "retrained" / "report.html").exists(),
        "setback_counts": tables.setback_table(study).to_dict("records"),
        "setbacks": tables.setbacks(study)[:_SETBACK_ROWS],
        "setbacks_total": len(tables.setbacks(study)),
        "repeats": tables.repeats(study),
        "config": _yaml(study.config),
        "environment": _yaml(study.environment),
    }


def _facts(study: StudyRecord) -> list[tuple[str, str]]:
    """Return key facts as (label, value); those that the configuration lacks are left out."""
    states = [trial.state for trial in study.trials]
    data, training = _section(study, "data"), _section(study, "training")
    latency, search = _section(study, "latency"), _section(study, "search")
    environment = study.environment
    sizes = {size_in_words(trial.architecture.image_size) for trial in study.trials}
    space = f" ({_big(study.space_size)} assignments)" if study.space_size else ""
    pixels = " and ".join(f"{size} px" for size in sorted(sizes))
    trained, timed = tables.needs(study, "training"), tables.needs(study, "device")
    facts = [
        ("Evaluated", f"{len(found(study)):,} + {len(study.references)} references"),
        ("Confirmed", _confirmed(study)),
        ("Rejected by limits", f"{states.count('rejected'):,}"),
        ("Stopped early", f"{states.count('stopped'):,}" if "stopped" in states else ""),
        ("Failed", f"{states.count('failed'):,}"),
        ("Not learned", _unlearned(study)),
        ("Repeated proposals", f"{tables.repeats(study):,}"),
        ("Total trial time", format_duration(sum(trial.duration_s for trial in study.trials))),
        ("Space", f"{study.space_name}{space}" if "space" in study.config else ""),
        ("Sampler", str(search.get("sampler") or "")),
        ("Data", _joined(data.get("kind"), _with_unit(_images_used(study), "images"),
                         pixels) if trained else ""),
        ("About the images", "; ".join(environment.get("about_images", ())) if trained else ""),
        ("Images", "" if trained else pixels),
        ("Budget", _epochs(training.get("epochs")) if trained else ""),
        ("Recipe", _recipe(training) if trained else ""),
        ("Loss", str(training.get("loss") or "") if trained else ""),
        ("Device", _joined(environment.get("device_name") or environment.get("device"),
                           _with_unit(environment.get("threads"), "threads"))
                   if trained or timed else ""),
        ("Losses", _LATENTS.get(str(training.get("evaluate_at", "sample")), "") if trained else ""),
        ("Further set-ups", "; ".join(_further_set_ups(study))),
        ("Latency", _joined(_set_up(study), _with_unit(latency.get("batch"), "", "batch "),
                            _with_unit(latency.get("threads"), "threads"),
                            f"on {environment['timed_on']}" if "timed_on" in environment else "",
                            "front measured together" if study.measured_together else "")
                    if measures_latency(study.wanted) else ""),
        ("Waiting for measurements", _waiting(study) if timed else ""),
    ]  # fmt: skip
    return [(label, value) for label, value in facts if value]


def _images_used(study: StudyRecord) -> int | None:
    """Return the number of images of all parts, or of those asked for where none is recorded."""
    counts = study.environment.get("images") or {}
    known = [counts[part] for part in ("train", "validation", "test") if part in counts]
    asked: int | None = _section(study, "data").get("count")
    return sum(known) if len(known) == 3 else asked


def _recipe(training: Mapping[str, Any]) -> str:
    """Return recipe, rate, precision and flips, or "" where no recipe is recorded."""
    recipe, rate = training.get("recipe"), training.get("learning_rate")
    given = (f"learning rate {rate:g}" if rate else "", training.get("precision", ""))
    flips = "random flips" if training.get("flip") else ""
    return _joined(recipe, *given, flips) if recipe else ""


def _set_up(study: StudyRecord, name: str = "") -> str:
    """Return runtime, precision, part and machine where they are not the usual ones."""
    latency = _settings(study, name)
    backend, precision, part = (latency.get(key) for key in ("backend", "precision", "part"))
    target = latency.get("target")
    there = (study.environment.get("targets") or {}).get(target, {})
    versions = str(study.environment.get("runtime") or "").split(", ")
    if target:
        versions = [f"onnxruntime {there.get('onnxruntime', '')}"]
    return _joined(
        "" if backend in (None, "eager") else _versioned(backend, versions),
        "" if precision in (None, "float32") else precision,
        "" if part in (None, "full") else f"the {part} alone",
        f"on {target} ({there.get('processor', 'unknown')})" if target else "",
    )


def _settings(study: StudyRecord, name: str) -> Mapping[str, Any]:
    found = study.config.get("latency") if not name else study.config["setups"].get(name)
    return found or {}


def _versioned(backend: str, versions: Sequence[str]) -> str:
    """Return a backend with the version of its package, by which its name begins."""
    for one in versions:
        package, _, number = one.partition(" ")
        if package and backend.startswith(package):
            return f"{backend} {number}"
    return backend


def _further_set_ups(study: StudyRecord) -> list[str]:
    usual = "the full pass in eager PyTorch"
    return [f"{name}: {_set_up(study, name) or usual}" for name in study.config.get("setups") or {}]


def _explanation(objective: Objective, study: StudyRecord) -> str:
    """Return the definition of an objective in this study."""
    name = set_up_of(objective.name)
    if name is None or not (set_up := _set_up(study, name)):
        return objective.explanation
    whole = objective.explanation.partition(":")
    full = _settings(study, name).get("part", "full") == "full"
    return f"{whole[0] if full else 'one pass'} ({set_up}): {whole[2].strip()}"


def _waiting(study: StudyRecord) -> str:
    """Return the share of the trials' time spent waiting for other trials' measurements."""
    waited_s = sum(trial.findings.timings_s.get("waiting", 0.0) for trial in study.trials)
    total_s = sum(trial.duration_s for trial in study.trials)
    return f"{waited_s / total_s:.0%} of the trial time" if total_s and waited_s >= 1 else ""


def _tiles(study: StudyRecord) -> dict[str, Any] | None:
    """Compare the best architecture with the first reference: one tile for each objective."""
    reference = next(iter(study.yardsticks.values()), None)
    best = champion(study, reference) if reference else None
    if reference is None or best is None:
        return None
    entries = []
    compared = compare(study, best, reference)
    for objective in study.objectives:
        value, other = best.objectives[objective.name], reference.objectives[objective.name]
        entries.append(
            {
                "change": tables.change_of(objective, compared),
                "value": format_value(objective, value),
                "reference": format_value(objective, other),
                "tint": _tint(compared, objective.name),
                "busy": compared.contended and objective.cost == "device",
            }
        )
    return {"trial": best, "reference": reference.name, "entries": entries}


def _dominance(study: StudyRecord) -> list[dict[str, Any]]:
    counts = tables.dominance_table(study).to_dict("index")
    total = len(study.objectives)
    return [
        {
            "name": name,
            "profile": _profile(study, reference),
            "dominators": [trial.name for trial in dominators(study, reference)][:12],
            "dominate": counts[name]["dominate"],
            "better": [(k, counts[name][f"better_in_{k}"]) for k in range(total, -1, -1)],
        }
        for name, reference in study.yardsticks.items()
    ]


def _unlearned_references(study: StudyRecord) -> list[tuple[str, str]]:
    """Return the references that have not learned, with the reason."""
    reasons = {name: study.unlearned(trial) for name, trial in study.references.items()}
    return [(name, why) for name, why in reasons.items() if why]


def _comparison(study: StudyRecord) -> list[dict[str, Any]]:
    references = list(study.yardsticks.values())
    if not references:
        return []
    return [
        {"name": trial.name, "groups": [_compared(study, trial, other) for other in references]}
        for trial in _best_found(study)
    ]


def _best_found(study: StudyRecord) -> list[TrialRecord]:
    """Return the trials to compare, those that improve most on the first reference first."""
    reference = next(iter(study.yardsticks.values()), None)
    members = list(tables.compared_members(study))
    return (ranked(study, members, reference) if reference else members)[:_FRONT_ROWS]


def _compared(study: StudyRecord, trial: TrialRecord, reference: TrialRecord) -> dict[str, Any]:
    compared = compare(study, trial, reference)
    cells = [
        {
            "sort": compared.gain(o.name),
            "text": tables.gain_of(o, compared),
            "tint": _tint(compared, o.name),
            "busy": compared.contended and o.cost == "device",
        }
        for o in study.objectives
    ]
    return {"better": compared.better, "dominates": compared.dominates, "cells": cells}


def _confirmed(study: StudyRecord) -> str:
    models = confirmed_models(study)
    count = sum(trial.reference is None for trial in models)
    return f"{count:,} + {len(models) - count} references" if models else ""


def _confirmation(study: StudyRecord) -> list[dict[str, Any]]:
    """Return a row per confirmed model: what the search saw, the mean over further seeds, test."""
    loss = the_loss(study)
    if loss is None or study.noise is None:
        return []
    return [
        {
            "name": row["name"],
            "seeds": row["seeds"],
            "observed": format_value(loss, row["observed"]),
            "confirmed": format_value(loss, row["confirmed"]),
            "interval": f"{format_value(loss, row['low'])} to {format_value(loss, row['high'])}",
            "change": format_change(row["confirmed"] / row["observed"]),
            "test": format_value(loss, row["test"]),
        }
        for row in confirmation_table(study).to_dict("records")
    ]


def _ideal(objective: Objective) -> str:
    return f"{noun(objective)} {objective.ideal:g} {objective.unit}".rstrip()


def _front(study: StudyRecord) -> dict[str, Any]:
    metrics = tables.quality_metrics(study)
    heads = [
        (axis_title(o), f"{_explanation(o, study)}; {o.better} is better") for o in study.objectives
    ]
    heads += [
        (axis_title(o), f"{_explanation(o, study)}; recorded, but not an objective of this study")
        for o in study.recorded
    ]
    heads += [(_metric_title(name), "higher is better") for name in metrics]
    latent = latent_heads(study)
    best = {trial.number for trial in _best_found(study)}
    listed = [trial for trial in study.front if trial.reference or trial.number in best]
    rows = [_front_row(study, trial, metrics) for trial in listed]
    columns = (*study.objectives, *study.recorded)
    floors = floor_rows(study, [*listed, *study.references.values()], columns, metrics)
    return {
        "heads": heads + latent,
        "rows": rows,
        "floors": [[*row, *(MISSING for _ in latent)] for row in floors],
        "fitted": fitted_words(study),
        "listed": _share_listed(study, len(best)),
    }


def _share_listed(study: StudyRecord, count: int) -> str:
    total = len(tables.compared_members(study))
    if count == total:
        return ""
    by = f" that improve most on `{next(iter(study.yardsticks))}`" if study.yardsticks else ""
    return (
        f"The table lists the {count}{by}, of {total:,} found; `nas study export {study.name}` "
        "writes all of them."
    )


def _front_row(study: StudyRecord, trial: TrialRecord, metrics: Sequence[str]) -> dict[str, Any]:
    cells: list[dict[str, Any]] = [
        {
            "sort": trial.objectives[objective.name],
            "text": format_value(objective, trial.objectives[objective.name]),
            "interval": _interval(objective, trial),
            "busy": trial.contended and objective.cost == "device",
            "single": objective in study.trained and bool(study.noise) and not trial.confirmed,
        }
        for objective in (*study.objectives, *study.recorded)
    ]
    for name in metrics:
        value = trial.metrics.get(name)
        text = format_metric(name, value)
        shown = {"sort": value or 0, "text": text, "interval": "", "busy": False, "single": False}
        cells.append(shown)
    cells += latent_cells(study, trial)
    return {"trial": trial, "cells": cells, "profile": _profile(study, trial)}


def _unlearned(study: StudyRecord) -> str:
    """Return the number of models that have not learned; "" if all have."""
    count = len(study.complete) - len(study.learned)
    return f"{count:,} of {len(study.complete):,}" if count else ""


def _profile(study: StudyRecord, trial: TrialRecord) -> str:
    """Return the link to the trial's layer profile, relative to the study's folder, or ""."""
    link = f"artefacts/{trial.digest}/profile.html"
    return link if (study.folder / link).exists() else ""


def _interval(objective: Objective, trial: TrialRecord) -> str:
    if objective.name not in trial.intervals:
        return ""
    low, high = (format_value(objective, v) for v in trial.intervals[objective.name])
    return f"{low.removesuffix(f' {objective.unit}')} to {high}"


def _tint(compared: Comparison, name: str) -> str:
    """Return the CSS class of a gain: better1 to 3, worse1 to 3, or even (also if tied).

    A difference has no size that could be compared with that of a factor: it is 1.
    """
    verdict, factor = compared.verdicts[name], compared.factors.get(name, 1.0)
    if not verdict:
        return "even"
    size = max(factor, 1 / factor)
    return f"{'better' if verdict > 0 else 'worse'}{1 if size < 1.2 else 2 if size < 3 else 3}"


def _section(study: StudyRecord, key: str) -> Mapping[str, Any]:
    section = study.config.get(key)
    return section if isinstance(section, Mapping) else {}


def _metric_title(name: str) -> str:
    base = name.removesuffix("_db")
    title = _METRICS.get(base, base.replace("_", " "))
    return f"{title} (dB)" if "psnr" in name else title


def _epochs(count: object) -> str:
    return "" if count is None else f"at most {_with_unit(count, 'epochs')}"


def _with_unit(value: object, unit: str, before: str = "") -> str:
    if value is None:
        return ""
    unit = unit.removesuffix("s") if value == 1 else unit
    return f"{before}{value:,} {unit}".strip() if isinstance(value, int) else f"{value} {unit}"


def _joined(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


def _big(count: int) -> str:
    return f"{count:,}" if count < 10**9 else f"{count:.1e}".replace("e+", " x 10^")


def _yaml(data: Mapping[str, Any]) -> str:
    import yaml

    plain = json.loads(json.dumps(data, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
