"""An objective that workers import by its import string."""

from __future__ import annotations

from torch import Tensor

from nas import objective


@objective(direction="maximise", ideal=1.0)
def closeness(images: Tensor, reconstructions: Tensor) -> float:
    """One minus the mean absolute error."""
    return 1 - float((images - reconstructions).abs().mean())
