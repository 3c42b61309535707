"""The findings of an evaluation; reading them needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

EvaluationStep = Literal["static", "device", "training", "done"]
"""The last finished step: exact costs, measurements, an epoch of training, or everything."""


class CandidateFailed(RuntimeError):  # noqa: N818 - it is a result, not a mistake
    """This candidate cannot be evaluated; others can."""


QUALITY_FIELDS = {"reconstruction_loss": "reconstruction", "total_loss": "total"}
"""Names in a record of those fields of `nas.protocol.Quality` that have other names there."""


@dataclass(frozen=True)
class Findings:
    """The results of an evaluation so far.

    Attributes:
        step: The last finished step; "done" ends an evaluation.
        objectives: Objective -> value, as far as known.
        metrics: Further values: losses on the validation split (lower is better: `total_loss`,
            `l1`, `kl`; higher is better: `ssim`, `ms_ssim`, `psnr_db`) and details of the latency.
        intervals: Objective -> 95 % confidence interval (low, high).
        contended: Whether other work on the machine disturbed the measurement of the latency.
        history: One mapping per epoch: `epoch`, `train_loss`, `validation_loss` (the total loss),
            `reconstruction_loss`, the other trained objectives of the study, `duration_s`.
        timings_s: Wall-clock seconds by step. Time spent waiting for others' measurements is listed
            separately, as `waiting`.
    """

    step: EvaluationStep = "static"
    objectives: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    contended: bool = False
    history: Sequence[Mapping[str, float]] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
