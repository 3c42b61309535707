"""Smoothness: how evenly the image changes on a straight line through the latent space."""

from __future__ import annotations

import numpy as np
import torch

from nas.ssim import Window, ssim
from nas.vae import VAE
from profiling.progress import Progress
from studies.paper.inference import as_bytes, decode
from studies.paper.stored import Array, Arrays

PAIRS, STEPS, SHOWN_PAIRS, SHOWN_STEPS = 64, 10, 3, 6

_ROUNDING = 1e-5
"""Rounding error of an SSIM in float32."""

MEASURES: dict[str, tuple[str, str]] = {
    "step_variation": (
        "Step variation, 1 - SSIM",
        "standard deviation of the ten steps over their mean; 0 = all steps change the image "
        "equally, lower is smoother",
    ),
    "step_variation_l1": ("Step variation, L1", "the same, with the mean absolute change"),
    "straightness": (
        "Straightness, L1",
        "distance between the ends over the length of the path; 1 = no pixel changes back and "
        "forth, higher is straighter",
    ),
    "span": (
        "Span, L1",
        "distance between the decoded ends over that of the two photos; 1 = equal distances. Near "
        "0 smoothness means nothing: all images are the same",
    ),
}


def pairs_of(count: int, seed: int = 0) -> Array:
    """Return up to 64 random pairs of images, int `(pairs, 2)`; no image occurs twice."""
    order = np.random.default_rng(seed).permutation(count)
    pairs = min(PAIRS, count // 2)
    return np.asarray(order[: 2 * pairs].reshape(pairs, 2))


def interpolation_points(means: Array, pairs: Array, steps: int = STEPS) -> Array:
    """Return the latents on the line of each pair, with both ends: `(pairs, steps + 1, latent)`."""
    share = np.linspace(0, 1, steps + 1)[None, :, None]
    first, last = means[pairs[:, 0]][:, None], means[pairs[:, 1]][:, None]
    return np.asarray((1 - share) * first + share * last, np.float32)


def interpolate(
    model: VAE,
    means: Array,
    pairs: Array,
    photos: Array,
    window: Window,
    batch_size: int,
    progress: Progress,
) -> Arrays:
    """Interpolate between test images; return each of `MEASURES`, `(pairs,)`, and some images.

    Args:
        model: The model that decodes the latents.
        means: Latent means of the test set `(n, latent)`.
        pairs: Rows of `means`, `(pairs, 2)`.
        photos: The images themselves, uint8 `(pairs, 2, channels, height, width)`.
        window: Window of the SSIM, as in the loss.
        batch_size: Number of images decoded at once.
        progress: Called with the number of batches done and the total.
    """
    points = interpolation_points(means, pairs)
    images = decode(model, points.reshape(-1, means.shape[1]), batch_size, progress)
    images = images.reshape(len(pairs), STEPS + 1, *images.shape[1:])
    shown = np.linspace(0, STEPS, SHOWN_STEPS).round().astype(int)
    found = [path_measures(path, window) for path in images]
    measures = {name: np.array([one[name] for one in found]) for name in found[0]}
    apart = np.abs(photos[:, 0] / 255.0 - photos[:, 1] / 255.0).mean(axis=(1, 2, 3))
    measures["span"] = measures.pop("ends") / np.maximum(apart, 1e-9)
    return {**measures, "images": as_bytes(images[:SHOWN_PAIRS][:, shown])}


def path_measures(path: Array, window: Window) -> dict[str, float]:
    """Return the measures of one path: images `(steps + 1, channels, height, width)` in [0, 1]."""
    l1 = np.abs(np.diff(path, axis=0)).mean(axis=(1, 2, 3))
    images = torch.from_numpy(path)
    unlike = [
        1 - float(ssim(images[i : i + 1], images[i + 1 : i + 2], window)) for i in range(len(l1))
    ]
    ends = float(np.abs(path[-1] - path[0]).mean())
    return {
        "step_variation": _variation(np.array(unlike)),
        "step_variation_l1": _variation(l1),
        "straightness": ends / max(float(l1.sum()), 1e-12),
        "ends": ends,
    }


def _variation(steps: Array) -> float:
    """Return the coefficient of variation; NaN if the steps are only rounding errors."""
    mean = float(steps.mean())
    return float(steps.std()) / mean if mean > _ROUNDING else float("nan")
