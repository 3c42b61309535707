"""How evenly the image changes on a straight way through the latent space."""

from __future__ import annotations

import numpy as np
import torch

from nas.losses import Window, ssim
from nas.vae import VAE
from studies.paper.inference import Progress, as_bytes, decode
from studies.paper.stored import Array, Arrays

PAIRS, STEPS, SHOWN_PAIRS, SHOWN_STEPS = 64, 10, 3, 6

_ROUNDING = 1e-5
"""What an SSIM in float32 may be off by."""

MEASURES: dict[str, tuple[str, str]] = {
    "step_variation": (
        "Step variation, 1 - SSIM",
        "standard deviation of the ten steps over their mean; 0 = every step changes the image as "
        "much, lower is smoother",
    ),
    "step_variation_l1": ("Step variation, L1", "the same by mean absolute change"),
    "straightness": (
        "Straightness, L1",
        "distance between the ends over the length of the way; 1 = no pixel goes back and forth, "
        "higher is straighter",
    ),
    "span": (
        "Span, L1",
        "distance between the decoded ends over that of the two photos; 1 = as different as these. "
        "Near 0 smoothness is worthless: all images are the same",
    ),
}


def pairs_of(count: int, seed: int = 0) -> Array:
    """Return up to 64 random pairs of different images, int `(pairs, 2)`; none occurs twice."""
    order = np.random.default_rng(seed).permutation(count)
    pairs = min(PAIRS, count // 2)
    return np.asarray(order[: 2 * pairs].reshape(pairs, 2))


def ways(means: Array, pairs: Array, steps: int = STEPS) -> Array:
    """Return the latents on the way of each pair, both ends included: `(pairs, steps + 1, d)`."""
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
    """Walk from one test image to another; return each of `MEASURES` `(pairs,)` and some images.

    Args:
        model: Decodes the ways.
        means: Latent means of the test set `(n, latent)`.
        pairs: Rows of `means`, `(pairs, 2)`.
        photos: The images themselves, uint8 `(pairs, 2, channels, height, width)`.
        window: Of the SSIM, as in the loss.
        batch_size: Images decoded at once.
        progress: Is told the batches.
    """
    points = ways(means, pairs)
    images = decode(model, points.reshape(-1, means.shape[1]), batch_size, progress)
    images = images.reshape(len(pairs), STEPS + 1, *images.shape[1:])
    shown = np.linspace(0, STEPS, SHOWN_STEPS).round().astype(int)
    found = [way_measures(way, window) for way in images]
    measures = {name: np.array([one[name] for one in found]) for name in found[0]}
    apart = np.abs(photos[:, 0] / 255.0 - photos[:, 1] / 255.0).mean(axis=(1, 2, 3))
    measures["span"] = measures.pop("ends") / np.maximum(apart, 1e-9)
    return {**measures, "images": as_bytes(images[:SHOWN_PAIRS][:, shown])}


def way_measures(way: Array, window: Window) -> dict[str, float]:
    """Return the measures of one way, images `(steps + 1, channels, height, width)` in [0, 1]."""
    l1 = np.abs(np.diff(way, axis=0)).mean(axis=(1, 2, 3))
    images = torch.from_numpy(way)
    unlike = [
        1 - float(ssim(images[i : i + 1], images[i + 1 : i + 2], window)) for i in range(len(l1))
    ]
    ends = float(np.abs(way[-1] - way[0]).mean())
    return {
        "step_variation": _variation(np.array(unlike)),
        "step_variation_l1": _variation(l1),
        "straightness": ends / max(float(l1.sum()), 1e-12),
        "ends": ends,
    }


def _variation(steps: Array) -> float:
    """Return the coefficient of variation; NaN where steps are no more than rounding errors."""
    mean = float(steps.mean())
    return float(steps.std()) / mean if mean > _ROUNDING else float("nan")
