"""Rate and distortion of trained models: where a lower reconstruction loss costs more nats.

The loss of a VAE is its distortion plus a weight times its rate (Alemi et al. 2018, "Fixing a
Broken ELBO", https://arxiv.org/abs/1711.00464). Here the distortion is the reconstruction loss and
the rate the Kullback-Leibler divergence of the latent from N(0, 1), in nats. Two models of equal
quality may differ in reconstruction loss only because one sends more nats through its latent; their
total losses count both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.objectives import TRAINED_OBJECTIVE
from studies.record.comparison import champion
from studies.record.formats import listed
from studies.record.records import StudyRecord, TrialRecord

DIVERGED = 3
"""A training diverged if its total loss is above this multiple of its reconstruction loss."""

_NAMED = 3
"""Maximum number of architectures that a note names."""


@dataclass(frozen=True)
class LossParts:
    """The total loss of a trained model, and the two parts that it is made of.

    Attributes:
        distortion: The reconstruction loss.
        rate: Kullback-Leibler divergence, summed over the latent, in nats.
        total: The distortion plus the study's `training.kl_weight` times the rate.
    """

    distortion: float
    rate: float
    total: float

    @classmethod
    def of(cls, trial: TrialRecord) -> LossParts | None:
        """Return the parts of a trial's loss; None if one of them was not recorded."""
        known = {**trial.objectives, **trial.metrics}
        found = [known.get(name) for name in (TRAINED_OBJECTIVE, "kl", "total_loss")]
        distortion, rate, total = found
        if distortion is None or rate is None or total is None:
            return None
        return cls(distortion, rate, total)

    @property
    def diverged(self) -> bool:
        """Whether the training diverged: the rate dominates the total loss."""
        return self.total > DIVERGED * self.distortion

    def bought(self, other: LossParts) -> bool:
        """Return whether the distortion is lower than another model's, but not the total loss."""
        return self.distortion < other.distortion and self.total >= other.total


def loss_parts(trials: Sequence[TrialRecord]) -> list[tuple[TrialRecord, LossParts]]:
    """Return the trials that recorded the parts of their loss, with these."""
    found = [(trial, LossParts.of(trial)) for trial in trials]
    return [(trial, parts) for trial, parts in found if parts is not None]


def with_champion(study: StudyRecord, members: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the members and, after them, the best trial of the headline unless it is one."""
    main = next(iter(study.yardsticks.values()), None)
    best = champion(study, main) if main else None
    return [*members, *([best] if best and best not in members else [])]


def rate_notes(study: StudyRecord, members: Sequence[TrialRecord]) -> list[str]:
    """Return a note for each reference on the members that bought a lower reconstruction loss.

    A member bought it if its reconstruction loss is lower than the reference's, but its total loss
    is not.

    Args:
        study: The study.
        members: The architectures that are compared with the references.
    """
    compared = loss_parts(with_champion(study, members))
    references = loss_parts(list(study.yardsticks.values()))
    return [note for one in references if (note := _note(compared, *one))]


def _note(
    compared: Sequence[tuple[TrialRecord, LossParts]], reference: TrialRecord, theirs: LossParts
) -> str:
    lower = [one for one in compared if one[1].distortion < theirs.distortion]
    bought = [(trial, ours) for trial, ours in lower if ours.bought(theirs)]
    if not bought:
        return ""
    who = (
        "The only compared architecture"
        if len(lower) == 1
        else f"{len(bought):,} of the {len(lower):,} compared architectures"
    )
    named = [f"{trial.name} has {_in_words(ours)}" for trial, ours in bought[:_NAMED]]
    if len(bought) > _NAMED:
        named.append(f"{len(bought) - _NAMED:,} more")
    return (
        f"{who} with a lower reconstruction loss than `{reference.name}` bought it with more nats, "
        f"and the total loss is not lower: {listed(named)}; `{reference.name}` has "
        f"{_in_words(theirs)}."
    )


def _in_words(parts: LossParts) -> str:
    return (
        f"{format_loss(parts.distortion)} at {format_nats(parts.rate)} nats "
        f"(total {format_loss(parts.total)})"
    )


def kl_weight(study: StudyRecord) -> float | None:
    """Return the weight of the rate in the study's total loss; None if it is not recorded."""
    training = study.config.get("training")
    weight = training.get("kl_weight") if isinstance(training, Mapping) else None
    return float(weight) if isinstance(weight, int | float) else None


def active_units(trial: TrialRecord) -> str:
    """Return the number of active latent units as `7 of 16`; "" if it was not recorded.

    A unit is active if the mean that the encoder gives it varies between images with a variance
    above 0.01 (Burda et al. 2016, "Importance Weighted Autoencoders", appendix C). The count of a
    model that was trained several times is a mean.
    """
    count = trial.metrics.get("active_units")
    return "" if count is None else f"{round(count, 1):g} of {trial.architecture.latent_size}"


def latent_words(study: StudyRecord, trial: TrialRecord) -> list[str]:
    """Return what is known of a trial's latent: rate, total loss and active units, as phrases.

    Values that are objectives of the study are left out, because they are shown as such.
    """
    parts, units = LossParts.of(trial), active_units(trial)
    words = []
    if parts and "kl" not in study.objective_names:
        words.append(f"KL {format_nats(parts.rate)} nats")
    if parts and "total_loss" not in study.objective_names:
        words.append(f"total loss {format_loss(parts.total)}")
    return [*words, *([f"{units} latent units active"] if units else [])]


def format_nats(rate: float) -> str:
    """Format a rate in nats without its unit: `38.0`, `1,204.5`, `6.6e+12`."""
    return f"{rate:,.1f}" if rate < 1e5 else f"{rate:.3g}"


def format_loss(loss: float) -> str:
    """Format a loss: `0.4884`; that of a training that diverged as `6.6e+12`."""
    return f"{loss:.4f}" if loss < 1e3 else f"{loss:.3g}"
