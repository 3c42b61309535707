"""Settings that records of earlier versions do not name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LATENCY = {"backend": "eager", "precision": "float32", "part": "full", "target": None}
_TRAINING = {"recipe": "paper", "evaluate_at": "sample"}


def complete_training(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings of a training with those that did not exist when it was stored."""
    return {**_TRAINING, **stored}


def complete_latency(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings of a measurement with those that did not exist when it was stored.

    `precision` was the half width of intervals.
    """
    if isinstance(stored.get("precision"), str):
        return {**_LATENCY, **stored}
    renamed = {"half_width" if key == "precision" else key: one for key, one in stored.items()}
    return {**_LATENCY, **renamed}
