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

REFERENCE_LOSSES: Mapping[Focus, tuple[float, ...]] = {
    "accurate": (0.5,),
    "balanced": (1.0, 0.5),
    "cheap": (1.0,),
}
"""The loss of the reference point as a quantile of the losses observed; proposals take several in
turn."""

_TINY = 1e-12


def reference_losses(focus: Focus, losses: Array, turn: int) -> list[float]:
    """Return the losses of the reference point to try, beginning with that of a proposal's turn.

    Args:
        focus: The part of the front.
        losses: (points,), those observed.
        turn: Number of the proposal.
    """
    quantiles = REFERENCE_LOSSES[focus]
    first = turn % len(quantiles)
    return [float(np.quantile(losses, q)) for q in quantiles[first:] + quantiles[:first]]


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
