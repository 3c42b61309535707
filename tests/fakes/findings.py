"""Findings of a made-up training, as an evaluation reports them."""

from __future__ import annotations

from nas.evaluate import history_row
from nas.protocol import Quality
from nas.training import EpochResult


def quality(loss: float) -> Quality:
    """Return the quality of a model of this reconstruction loss."""
    return Quality(
        total=loss + 0.03,
        reconstruction=loss,
        ssim=1 - 0.8 * loss,
        l1=0.4 * loss,
        kl=30.0,
        psnr_db=30 - 26 * loss,
        ms_ssim=1 - 0.6 * loss,
        variation=0.5,
        active_units=3,
    )


def metrics(loss: float) -> dict[str, float]:
    """Return what an evaluation records of that quality beside the objective."""
    found = quality(loss).values
    del found["reconstruction"]
    return {"total_loss": found.pop("total"), **found, "best_epoch": 1, "images_per_s": 100.0}


def epoch(
    number: int, loss: float, train_loss: float | None = None, duration_s: float = 1.0
) -> dict[str, float]:
    """Return one epoch of a trial's history that ended with this reconstruction loss."""
    trained = loss if train_loss is None else train_loss
    return history_row(EpochResult(number, trained, quality(loss), duration_s, 100.0))
