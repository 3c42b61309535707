"""Choose where to write a point's label, so that it hides few other points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LETTER, _HEIGHT, _GAP = 0.034, 0.09, 0.04
"""Width of a letter, height of a label and its distance from the point.

All are shares of the smallest plot, which is that on a phone.
"""

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
"""Plotly's name of each position and the direction from the point to the label, best first."""

_Points = npt.NDArray[np.float64]


def label_places(points: _Points, anchors: _Points, lengths: Sequence[int]) -> list[str]:
    """Choose Plotly's text position for the label of each anchor, one after the other.

    Args:
        points: All points drawn, `(points, 2)`; coordinates from 0 to 1 along their axes.
        anchors: The points to label, `(labels, 2)`.
        lengths: Number of letters of each label.

    Returns:
        One position for each anchor.
    """
    taken, places = points, []
    corners = 0.04 * np.array([(u, v) for u in (-1, 0, 1) for v in (-1, 0, 1)])
    for index, (anchor, length) in enumerate(zip(anchors, lengths, strict=True)):
        # The symbols of the other anchors are large: points on their outlines are added.
        others = np.delete(anchors, index, axis=0)
        taken = np.vstack([taken, *(other + corners for other in others)])
        boxes = {place: _box(anchor, way, length) for place, way in _PLACES.items()}
        best = min(boxes, key=lambda place: _hidden(*boxes[place], taken))
        low, high = boxes[best]
        # Later labels must not cross this one: points on its outline are added.
        grid = np.linspace(0, 1, 5)
        outline = [low + (high - low) * np.array([u, v]) for u in grid for v in grid]
        taken = np.vstack([taken, outline])
        places.append(best)
    return places


def _box(anchor: _Points, way: tuple[float, float], length: int) -> tuple[_Points, _Points]:
    half = np.array([_LETTER * length, _HEIGHT]) / 2
    centre = anchor + np.array(way) * (half + _GAP)
    return centre - half, centre + half


def _hidden(low: _Points, high: _Points, points: _Points) -> float:
    """Return the number of points under the box, plus 10 if the box leaves the plot."""
    outside = (low < -0.06).any() or (high > 1.06).any()
    return float(((points > low) & (points < high)).all(axis=1).sum()) + 10 * bool(outside)
