"""The part of the front that a search is after, by the loss of the reference point.

Volume above the loss of the reference point does not count. Costs count by their logarithms, so
with the highest loss observed as reference, cheap candidates of a high loss are worth most; with a
low one they are worth nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from nas.search.interfaces import Array

Focus = Literal["accurate", "balanced", "cheap"]
"""Low losses, both ends of the front, or low costs."""

REFERENCE_LOSSES: Mapping[Focus, tuple[Literal["highest", "front", "quarter"], ...]] = {
    "accurate": ("front",),
    "balanced": ("highest", "front", "quarter"),
    "cheap": ("highest",),
}
"""The loss of the reference point: the highest loss observed; the median loss of the front, so that
the accurate half of the front counts; the lower quartile of all losses, for the best ones.
Proposals take several in turn."""

_TINY = 1e-12


def reference_losses(focus: Focus, losses: Array, front: Array, turn: int) -> list[float]:
    """Return the losses of the reference point to try, beginning with that of a proposal's turn.

    While the front has no loss above the lowest, the median of all losses takes the place of its
    median: nothing can be better than the lowest loss by a known amount.

    Args:
        focus: The part of the front.
        losses: (points,), those observed.
        front: (points,), those of the observed front; it may be empty.
        turn: Number of the proposal.
    """
    middle = float(np.median(front if len(front) else losses))
    if middle <= losses.min():
        middle = float(np.median(losses))
    known = {
        "highest": float(losses.max()),
        "front": middle,
        "quarter": float(np.quantile(losses, 0.25)),
    }
    names = REFERENCE_LOSSES[focus]
    first = turn % len(names)
    return [known[name] for name in names[first:] + names[:first]]


def compressed(losses: Array, reference_loss: float) -> Array:
    """Return losses with what exceeds the reference point's compressed to a logarithm.

    No improvement depends on how far a loss is above the reference point, so a surrogate need not
    model it: a few very high losses would otherwise determine its scale. Lower losses stay as they
    are. The range of these is the unit of the logarithm.

    Args:
        losses: (points,).
        reference_loss: Loss of the reference point.
    """
    unit = max(reference_loss - float(losses.min()), _TINY)
    above = np.maximum(losses - reference_loss, 0)
    found: Array = np.minimum(losses, reference_loss) + unit * np.log1p(above / unit)
    return found
