"""Where to write a name beside its point, so that it hides as little as possible."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LETTER, _HEIGHT, _GAP = 0.034, 0.09, 0.04
"""Size of a label and its distance from the point, as shares of the smallest plot, on a phone."""

_PLACES = {
    "top center": (0.0, 1.0),
    "bottom center": (0.0, -1.0),
    "middle right": (1.0, 0.0),
    "middle left": (-1.0, 0.0),
    "top right": (1.0, 1.0),
    "top left": (-1.0, 1.0),
    "bottom right": (1.0, -1.0),
    "bottom left": (-1.0, -1.0),
}
"""Plotly's name and the direction in which the label leaves the point, best first."""

Array = npt.NDArray[np.float64]


def label_places(points: Array, anchors: Array, lengths: Sequence[int]) -> list[str]:
    """Choose plotly text positions for the labels of `anchors`, one after the other.

    Args:
        points: (points, 2), everything drawn, each coordinate 0 to 1 along its axis.
        anchors: (labels, 2), the labelled points among them.
        lengths: letters of each label.
    """
    taken, places = points, []
    corners = 0.04 * np.array([(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)])
    for index, (anchor, length) in enumerate(zip(anchors, lengths, strict=True)):
        # The other symbols are large: their outlines count as points, too.
        others = np.delete(anchors, index, axis=0)
        taken = np.vstack([taken, *(other + corners for other in others)])
        boxes = {place: _box(anchor, way, length) for place, way in _PLACES.items()}
        best = min(boxes, key=lambda place: _hidden(*boxes[place], taken))
        low, high = boxes[best]
        # The next label shall not cross this one: its outline counts as points.
        grid = np.linspace(0, 1, 5)
        outline = [low + (high - low) * np.array([u, v]) for u in grid for v in grid]
        taken = np.vstack([taken, outline])
        places.append(best)
    return places


def _box(anchor: Array, way: tuple[float, float], length: int) -> tuple[Array, Array]:
    half = np.array([_LETTER * length, _HEIGHT]) / 2
    centre = anchor + np.array(way) * (half + _GAP)
    return centre - half, centre + half


def _hidden(low: Array, high: Array, points: Array) -> float:
    """Points under the box; leaving the plot counts like ten."""
    outside = (low < -0.06).any() or (high > 1.06).any()
    return float(((points > low) & (points < high)).all(axis=1).sum()) + 10 * bool(outside)
