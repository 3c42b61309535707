"""The judgement whether a trained model has learned.

A model that has not learned stays in the record, but its loss is no result: it is not on the front,
dominates nothing and is not compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nas.floors import Floors
from nas.objectives import TRAINED_OBJECTIVE
from studies.record.formats import format_percent
from studies.record.trial import TrialRecord

LEAST_VARIATION = 0.01
"""Smallest variance between a model's reconstructions, as a share of that between the images.

The first principal component alone has 43 % of the variance of the rendered faces at 64 pixels. A
model below a fortieth of that gives nearly the same picture for every image.
"""

LEAST_KL = 1.0
"""Smallest KL divergence in nats: below it the latent says almost nothing about the image."""

NO_BETTER_THAN_MEAN = "no better than the mean training image"
SAME_PICTURE = "nearly the same reconstruction for every image"
EMPTY_LATENT = "KL divergence below one nat"
"""The kinds of reasons why a model has not learned."""


def unlearned(trial: TrialRecord, floors: Floors | None) -> str | None:
    """Return why a complete, trained trial has not learned, as a clause; None otherwise.

    Values that were not recorded, as in earlier studies, do not count against a trial.
    """
    return next((reason for _, reason in _reasons(trial, floors)), None)


def kinds_unlearned(
    trials: Iterable[TrialRecord], floors: Floors | None
) -> dict[str, list[TrialRecord]]:
    """Return the trials that have not learned by the kind of their first reason."""
    found: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        if first := next(_reasons(trial, floors), None):
            found.setdefault(first[0], []).append(trial)
    return found


def _reasons(trial: TrialRecord, floors: Floors | None) -> Iterator[tuple[str, str]]:
    """Yield each reason as (kind, clause)."""
    loss, metrics = trial.objectives.get(TRAINED_OBJECTIVE), trial.metrics
    if trial.state != "complete" or loss is None:
        return
    if floors and loss >= (mean := floors.mean.reconstruction):
        yield (
            NO_BETTER_THAN_MEAN,
            f"its loss, {loss:.4f}, is not below that of the mean training image, {mean:.4f}",
        )
    if (variation := metrics.get("variation", 1.0)) < LEAST_VARIATION:
        share = format_percent(variation)
        yield SAME_PICTURE, f"its reconstructions have {share} of the images' variance"
    if (kl := metrics.get("kl", LEAST_KL)) < LEAST_KL:
        yield EMPTY_LATENT, f"its KL divergence is {kl:.2g} nats, less than one"
