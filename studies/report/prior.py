"""Samples from the prior as embedded pictures: what each model draws without an image to copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.artefacts import read_pixels
from studies.record.rate import active_units
from studies.record.records import StudyRecord, TrialRecord
from studies.report.pictures import PictureRow, data_uri


@dataclass(frozen=True)
class PriorRow:
    """A row of images that a model decoded from latents drawn from N(0, 1).

    Attributes:
        name: Name of the trial.
        latent: Its latent in words.
        uri: The row as a WEBP data URI.
    """

    name: str
    latent: str
    uri: str


def prior_rows(study: StudyRecord, rows: Sequence[PictureRow]) -> list[PriorRow]:
    """Return the samples of the models whose reconstructions are shown, in their order.

    Trials without readable samples are left out: those of earlier versions have none.

    Args:
        study: The study.
        rows: The rows of reconstructions, originals included.
    """
    shown = [(row.trial, row.images) for row in rows if row.trial]
    loaded = [(trial, read_pixels(study.prior_samples(trial)), most) for trial, most in shown]
    return [
        PriorRow(trial.name, _latent(trial), data_uri(images[:most], "WEBP"))
        for trial, images, most in loaded
        if images is not None
    ]


def _latent(trial: TrialRecord) -> str:
    units = active_units(trial)
    return f"{units} units active" if units else f"{trial.architecture.latent_size} latent units"
