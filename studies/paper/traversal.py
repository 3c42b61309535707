"""Latent traversals: faces decoded while one latent dimension moves from -3 to 3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.vae import VAE
from profiling.progress import Progress
from search_spaces.errors import UserError
from studies.paper.inference import as_bytes, decode
from studies.paper.stored import Array, Arrays

STEPS = (-3.0, -1.5, 0.0, 1.5, 3.0)
"""Values of the traversed dimension, as in the paper."""

DIMENSION = 20
"""The dimension traversed in the paper, counted from 0."""

USED_NATS = 0.01
"""Minimum KL divergence from the prior of a dimension in use (cf. Burda et al. 2016)."""

SHOWN_DIMENSIONS = 4


def require_dimensions(dimensions: Sequence[int], latent_size: int) -> None:
    """Check that the latent has the dimensions.

    Raises:
        UserError: a dimension is out of range; the message names the first one.
    """
    for dimension in dimensions:
        if not 0 <= dimension < latent_size:
            raise UserError(
                f"--dimension {dimension}: the latent has {latent_size} dimensions; choose 0 to "
                f"{latent_size - 1}"
            )


def traversal_points(base: Array, dimension: int, steps: Sequence[float] = STEPS) -> Array:
    """Return `base` `(latent,)` with one dimension set to each step: `(steps, latent)`."""
    points = np.repeat(base[None].astype(np.float32), len(steps), axis=0)
    points[:, dimension] = steps
    return points


def dimension_effects(model: VAE, bases: Array, batch_size: int, progress: Progress) -> Arrays:
    """Return `effect`, `(latent,)`: how much each dimension changes the image from -3 to 3.

    It is the mean absolute change of the pixels' values over the faces `bases`, `(n, latent)`.
    """
    ends = (STEPS[0], STEPS[-1])
    latent = bases.shape[1]
    points = [traversal_points(base, d, ends) for base in bases for d in range(latent)]
    images = decode(model, np.concatenate(points), batch_size, progress)
    pairs = images.reshape(len(bases), latent, 2, -1)
    return {"effect": np.abs(pairs[:, :, 1] - pairs[:, :, 0]).mean(axis=(0, 2))}


def traversals(model: VAE, base: Array, dimensions: Sequence[int], batch_size: int) -> Arrays:
    """Return `images`, uint8 `(dimensions, steps, channels, height, width)`, from `base`."""
    points = np.concatenate([traversal_points(base, dimension) for dimension in dimensions])
    images = as_bytes(decode(model, points, batch_size))
    return {"images": images.reshape(len(dimensions), len(STEPS), *images.shape[1:])}


def divergence(mean: Array, log_variance: Array) -> Array:
    """Return the KL divergence of each dimension from N(0, 1) in nats, mean over images.

    Shape: `(latent,)`. Its sum is the KL term of the loss.
    """
    per_value = np.square(mean) + np.exp(log_variance) - 1 - log_variance
    return np.asarray(0.5 * per_value.mean(axis=0))


def shown_dimensions(asked: Sequence[int], effect: Array) -> list[int]:
    """Return the dimensions in `asked`, then those with the largest effects."""
    ranked = [int(d) for d in np.argsort(-effect, kind="stable")]
    return [*asked, *(d for d in ranked[: SHOWN_DIMENSIONS + len(asked)] if d not in asked)][
        : SHOWN_DIMENSIONS + len(asked)
    ]


def rank_of(dimension: int, effect: Array) -> int:
    """Return the rank of a dimension by its effect; 1 is the largest effect."""
    return int((effect > effect[dimension]).sum()) + 1
