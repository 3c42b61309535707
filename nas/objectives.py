"""The objectives of studies, domination, and the hypervolume of a front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces.errors import UserError, nearest

Cost = Literal["static", "device", "training"]
"""The source of a value: the architecture alone, a measurement, or training."""


@dataclass(frozen=True)
class Objective:
    """A quantity of a candidate that is minimised. All objectives are positive."""

    name: str
    title: str
    unit: str
    cost: Cost
    explanation: str


TRAINED_OBJECTIVE = "reconstruction_loss"
"""The objective found by training, and the key of its value per epoch in a trial's history."""

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            TRAINED_OBJECTIVE,
            "Reconstruction loss",
            "",
            "training",
            "(1 - SSIM) + 0.5 L1 on the validation images, at the epoch of lowest total loss",
        ),
        Objective("params", "Parameters", "", "static", "trainable parameters"),
        Objective(
            "macs",
            "MACs",
            "",
            "static",
            "multiply-accumulates of convolutions and linears, batch 1 (FLOPs = 2 x MACs)",
        ),
        Objective("flops", "FLOPs", "", "static", "2 x MACs, batch 1"),
        Objective(
            "latency_ms",
            "Latency",
            "ms",
            "device",
            "one full forward pass (encoder, sampling, decoder): its ratio to `original`, measured "
            "in the same rounds, times the latency of `original`",
        ),
        Objective(
            "predicted_latency_ms",
            "Predicted latency",
            "ms",
            "static",
            "latency predicted from the operations, without measuring: see `nas profile calibrate`",
        ),
        Objective(
            "peak_memory_bytes",
            "Peak memory",
            "B",
            "static",
            "parameters and live activations at the peak of one forward pass",
        ),
    )
}

DEFAULT_OBJECTIVES = (TRAINED_OBJECTIVE, "params", "macs", "latency_ms")


def select_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return the named objectives in order.

    Raises:
        UserError: a name is unknown or repeated, two objectives mean the same, or there are fewer
            than two.
    """
    for name in names:
        if name not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise UserError(
                f"objectives: {name!r} is not one of {known}{nearest(name, OBJECTIVES)}"
            )
    if len(set(names)) < len(names):
        raise UserError(f"objectives: {', '.join(names)}: name each objective once")
    if {"macs", "flops"} <= set(names):
        raise UserError("objectives: flops is exactly twice macs; choose one of them")
    if {"latency_ms", "predicted_latency_ms"} <= set(names):
        raise UserError("objectives: predicted_latency_ms replaces latency_ms; choose one of them")
    if len(names) < 2:
        raise UserError(
            f"objectives: {', '.join(names) or 'none'}: a trade-off needs at least two of "
            f"{', '.join(OBJECTIVES)}"
        )
    return tuple(OBJECTIVES[name] for name in names)


def dominates(a: Mapping[str, float], b: Mapping[str, float], names: Sequence[str]) -> bool:
    """Whether `a` is no worse than `b` in every named objective and better in at least one."""
    return all(a[n] <= b[n] for n in names) and any(a[n] < b[n] for n in names)


def nondominated(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mark the non-dominated rows of `points` (candidates, objectives); equal rows all stay."""
    import moocore

    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(points, keep_weakly=True)
    return mask


def hypervolume(points: npt.NDArray[np.float64], nadir: npt.NDArray[np.float64]) -> float:
    """Return the hypervolume of `points` as a share of the box from zero to `nadir`, 0 to 1.

    Args:
        points: (candidates, objectives), positive.
        nadir: (objectives,), the reference point; points beyond it do not count.
    """
    import moocore

    inside = points[(points < nadir).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    return float(moocore.hypervolume(inside / nadir, ref=np.ones(len(nadir))))
