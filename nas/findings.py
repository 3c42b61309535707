"""What an evaluation has found of a candidate so far; reading it needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

EvaluationStep = Literal["static", "device", "training", "done"]
"""The last step of an evaluation that is done: exact costs, measurements, an epoch, everything."""


@dataclass(frozen=True)
class Findings:
    """What is known of a candidate so far.

    Attributes:
        step: The last step that is done; "done" ends an evaluation.
        objectives: Value by objective name, as far as known.
        metrics: What was recorded beside them: losses on the validation split (`total_loss`, `l1`,
            `kl`: lower is better; `ssim`, `ms_ssim`, `psnr_db`: higher), latency details.
        intervals: 95 % interval (low, high) by objective name.
        contended: The latency was disturbed by something else on the machine.
        history: One mapping per epoch: `epoch`, `train_loss`, `validation_loss` (the total loss),
            `reconstruction_loss`, `duration_s`.
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

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Findings:
        """Return the findings that `dataclasses.asdict` made plain types of, and JSON a list."""
        intervals = {name: (low, high) for name, (low, high) in stored.get("intervals", {}).items()}
        return cls(**{**stored, "intervals": intervals})
