"""The latent means of the test set in two dimensions by t-SNE, as in the paper."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.paper.stored import Array, Arrays

if TYPE_CHECKING:
    import plotly.graph_objects as go

SEED = 0


def embed(latents: Array) -> Arrays:
    """Return `places`, float32 `(n, 2)`: scikit-learn's t-SNE, initialised by PCA."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(latents) - 1) / 3)
    with warnings.catch_warnings():  # a latent that is constant makes its PCA divide by zero
        warnings.simplefilter("ignore", RuntimeWarning)
        found = TSNE(perplexity=perplexity, init="pca", random_state=SEED).fit_transform(latents)
    return {"places": np.asarray(found, np.float32)}


def attribute_letters(labels: Array) -> str:
    """Return one letter per point, 1 if it has the attribute, for the page's script."""
    return "".join("1" if label else "0" for label in labels)


def embedding_figure(
    title: str, places: Array, shown: str | None, attribute: str = ""
) -> go.Figure:
    """Draw the points in two colours, those with `attribute` on top.

    `shown` tells which points have it, as `attribute_letters` returns them.

    All points are in the figure's `meta`, for the page's script to colour by another attribute.
    """
    from studies.pages.style import AMBER, GREY, new_figure

    x, y = (np.round(column.astype(float), 2).tolist() for column in places.T)
    figure = new_figure(title)
    name = attribute.replace("_", " ")
    groups = {f"not {name}": GREY, name: AMBER}
    for letter, (label, colour) in enumerate(groups.items()):
        rows = [i for i in range(len(x)) if (shown or "0" * len(x))[i] == str(letter)]
        marker: dict[str, Any] = {"color": colour, "size": 5, "opacity": 0.75 if letter else 0.45}
        figure.add_scatter(
            x=[x[i] for i in rows], y=[y[i] for i in rows], name=label, mode="markers",
            marker=marker, hoverinfo="skip", showlegend=shown is not None,
        )  # fmt: skip
    figure.update_xaxes(range=_range(x), visible=False)
    figure.update_yaxes(range=_range(y), visible=False)
    figure.update_layout(meta={"x": x, "y": y}, margin={"l": 12, "r": 12, "t": 64, "b": 12})
    return figure


def _range(values: list[float]) -> list[float]:
    room = 0.05 * max(max(values) - min(values), 1e-6)
    return [min(values) - room, max(values) + room]
