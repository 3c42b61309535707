"""Directions of labelled attributes in the latent space, and faces moved along them.

A direction is the difference of two class means (Larsen et al. 2016, attribute vectors): strength 1
moves a face by the distance between the mean of those with the attribute and the mean of those
without. A linear probe, trained on the training images, classifies whether the decoded face has
the attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nas.datasets import ImageDataset
from nas.datasets.dataset import ImageIndices
from nas.vae import VAE
from profiling.progress import Progress
from search_spaces.errors import UserError, nearest
from studies.paper.inference import as_bytes, decode, device_of, encode
from studies.paper.stored import Array, Arrays

STRENGTHS = (-1.0, 0.0, 1.0, 2.0, 3.0)
DEFAULT_ATTRIBUTES = ("Eyeglasses", "Blond_Hair", "Black_Hair", "Smiling")
"""Attributes that are manipulated by default."""

FEWEST = 5
"""Minimum number of images with and without an attribute, in training and in test."""

JUDGED = 32
"""Number of moved test faces from which the probe's shares are computed."""


@dataclass(frozen=True)
class LabelledLatents:
    """Latent means with labels, for training probes and for testing them.

    Attributes:
        train: Latent means of training images, `(train, latent)`.
        train_labels: Their labels, bool `(train, attributes)`.
        test: Latent means of the test images, `(test, latent)`.
        test_labels: Their labels, bool `(test, attributes)`.
    """

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array


def judgeable(dataset: ImageDataset, train: ImageIndices, test: ImageIndices) -> list[str]:
    """Return the attributes of which both parts have enough images with and without."""
    if dataset.attributes is None:
        return []
    names = []
    for column, name in enumerate(dataset.attribute_names):
        parts = [np.asarray(dataset.attributes[part, column]) for part in (train, test)]
        if all(FEWEST <= labels.sum() <= len(labels) - FEWEST for labels in parts):
            names.append(name)
    return names


def chosen_attributes(
    asked: Sequence[str], judged: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Return the attributes to manipulate: those in `asked`, otherwise the defaults in `judged`.

    Raises:
        UserError: an attribute is unknown, or too rare or too common to learn.
    """
    for name in asked:
        if name not in names:
            raise UserError(
                f"--attribute {name}: the images have {', '.join(names) or 'no attributes'}"
                f"{nearest(name, names)}"
            )
        if name not in judged:
            raise UserError(
                f"--attribute {name}: fewer than {FEWEST} training or test images have it, or lack "
                f"it; use more images{', or one of ' if judged else ''}{', '.join(judged)}"
            )
    return list(asked) or [name for name in DEFAULT_ATTRIBUTES if name in judged]


def labels_of(dataset: ImageDataset, indices: ImageIndices, names: Sequence[str]) -> Array:
    """Return the labels bool `(len(indices), len(names))`."""
    columns = [dataset.attribute_names.index(name) for name in names]
    if dataset.attributes is None or not columns:
        return np.zeros((len(indices), 0), bool)
    return np.asarray(dataset.attributes[indices][:, columns], bool)


def direction(latents: Array, labels: Array) -> Array:
    """Return the mean latent with the attribute minus the mean without it, `(latent,)`."""
    return np.asarray(latents[labels].mean(axis=0) - latents[~labels].mean(axis=0))


class Probe:
    """Logistic regression on standardised latents, with equal weights of both classes."""

    def __init__(self, latents: Array, labels: Array) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        regression = LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
        self._model = make_pipeline(StandardScaler(), regression).fit(latents, labels)

    def __call__(self, latents: Array) -> Array:
        """Predict for each latent `(n, latent)` whether it has the attribute: bool `(n,)`."""
        return np.asarray(self._model.predict(latents), bool)


def moved(latents: Array, along: Array, strengths: Sequence[float] = STRENGTHS) -> Array:
    """Return `latents` `(n, latent)` moved by each strength: `(n, strengths, latent)`."""
    return np.asarray(latents[:, None, :] + np.asarray(strengths)[None, :, None] * along)


def manipulate(
    model: VAE,
    latents: LabelledLatents,
    column: int,
    faces: int,
    batch_size: int,
    progress: Progress,
) -> Arrays:
    """Add an attribute to test faces that lack it.

    Returns:
        `images`: The decoded faces, uint8 `(faces, strengths, channels, height, width)`.
        `rows`: Indices of these faces in the test set.
        `share`: The share of moved faces, decoded and encoded again, in which the probe finds the
            attribute, `(strengths,)`.
        `balanced`: The probe's balanced accuracy on the test set, `(1,)`.
    """
    labels = latents.train_labels[:, column]
    probe = Probe(latents.train, labels)
    rows = np.flatnonzero(~latents.test_labels[:, column])[:JUDGED]
    points = moved(latents.test[rows], direction(latents.train, labels))
    count, steps, size = points.shape
    images = decode(model, points.reshape(-1, size), batch_size, progress)
    again = _encoded(model, images, batch_size)
    shown = images.reshape(count, steps, *images.shape[1:])[:faces]
    seen, truth = probe(latents.test), latents.test_labels[:, column]
    return {
        "images": as_bytes(shown),
        "rows": rows[:faces],
        "share": probe(again).reshape(count, steps).mean(axis=0),
        "balanced": np.array([balanced_accuracy(seen, truth)]),
    }


def balanced_accuracy(seen: Array, truth: Array) -> float:
    """Return the mean of the accuracies of both classes; guessing gives 0.5."""
    return float((seen[truth].mean() + (~seen[~truth]).mean()) / 2)


def _encoded(model: VAE, images: Array, batch_size: int) -> Array:
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    device = device_of(model)
    return np.concatenate([encode(model, torch.from_numpy(p).to(device)) for p in parts])
