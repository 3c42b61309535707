"""The table of rate and distortion, and the columns about the latent of the front's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studies.record.formats import MISSING
from studies.record.rate import (
    LossParts,
    active_units,
    format_loss,
    format_nats,
    kl_weight,
    loss_parts,
    with_champion,
)
from studies.record.records import StudyRecord, TrialRecord


def rate_words(study: StudyRecord, members: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return the variables of the section on rate and distortion.

    Args:
        study: The study.
        members: The architectures to list beside the references.

    Returns:
        `weight` of the rate in the total loss (None: not recorded), `references` (names), `units`
        (whether any trial recorded its active units), and `rows`, lowest total loss first; there
        are none if no trial recorded the parts of its loss.
    """
    references = loss_parts(list(study.yardsticks.values()))
    listed = [*references, *loss_parts(with_champion(study, members))]
    return {
        "weight": kl_weight(study),
        "references": [trial.name for trial, _ in references],
        "units": any(active_units(trial) for trial, _ in listed),
        "rows": [
            _row(trial, ours, references)
            for trial, ours in sorted(listed, key=lambda one: one[1].total)
        ],
    }


def _row(
    trial: TrialRecord,
    ours: LossParts,
    references: Sequence[tuple[TrialRecord, LossParts]],
) -> dict[str, Any]:
    return {
        "name": trial.name,
        "cells": [
            {"sort": ours.total, "text": format_loss(ours.total)},
            {"sort": ours.distortion, "text": format_loss(ours.distortion)},
            {"sort": ours.rate, "text": format_nats(ours.rate)},
        ],
        "units": _units(trial),
        "against": [_against(ours, theirs) for _, theirs in references],
    }


def _against(ours: LossParts, theirs: LossParts) -> dict[str, str]:
    """Say which losses are lower than the reference's, and by how much the total differs."""
    if ours == theirs:
        return {"text": MISSING, "tint": ""}
    total = _difference(ours, theirs)
    if ours.bought(theirs):
        more = format_nats(ours.rate - theirs.rate)
        return {"text": f"bought with {more} nats: total {total}", "tint": "worse2"}
    if ours.distortion < theirs.distortion:
        return {"text": f"both lower: total {total}", "tint": "better2"}
    if ours.total < theirs.total:
        return {"text": f"only the total: {total}", "tint": "better1"}
    return {"text": "neither is lower", "tint": ""}


def _difference(ours: LossParts, theirs: LossParts) -> str:
    """Return how the total losses compare: `5.2 % higher`, `14 % lower`, `equal`."""
    if ours.total == theirs.total or not theirs.total:
        return "equal"
    percent = 100 * abs(ours.total / theirs.total - 1)
    amount = f"{percent:,.0f}" if percent >= 9.95 else f"{percent:.2g}"
    way = "higher" if ours.total > theirs.total else "lower"
    return f"{'< 0.01' if percent < 0.01 else amount} % {way}"


def latent_heads(study: StudyRecord) -> list[tuple[str, str]]:
    """Return title and explanation of the columns that `latent_cells` fills."""
    heads = []
    if _shows_rate(study):
        heads.append(("KL (nats)", "rate: Kullback-Leibler divergence of the latent from N(0, 1)"))
    if _shows_units(study):
        explanation = "latent units whose mean varies between images (variance above 0.01)"
        heads.append(("Active units", explanation))
    return heads


def latent_cells(study: StudyRecord, trial: TrialRecord) -> list[dict[str, Any]]:
    """Return the cells of a trial's row for `latent_heads`."""
    cells: list[dict[str, Any]] = []
    parts = LossParts.of(trial)
    if _shows_rate(study):
        text = format_nats(parts.rate) if parts else MISSING
        cells.append({"sort": parts.rate if parts else 0, "text": text})
    if _shows_units(study):
        cells.append(_units(trial))
    return [{**cell, "interval": "", "busy": False, "single": False} for cell in cells]


def _units(trial: TrialRecord) -> dict[str, Any]:
    count = trial.metrics.get("active_units", 0)
    return {"sort": count, "text": active_units(trial) or MISSING}


def _shows_rate(study: StudyRecord) -> bool:
    return "kl" not in study.objective_names and bool(loss_parts(study.complete))


def _shows_units(study: StudyRecord) -> bool:
    return any(active_units(trial) for trial in study.complete)
