"""Scores of how well faces with a common attribute form clusters in the latent space."""

from __future__ import annotations

import numpy as np

from nas.datasets import ImageDataset
from nas.datasets.dataset import ImageIndices
from studies.paper.attributes import LabelledLatents, balanced_accuracy
from studies.paper.differences import Difference
from studies.paper.stored import Array, Arrays

NEIGHBOURS = 10
_SIDE = 12
_RESAMPLES = 300


def cluster_scores(latents: LabelledLatents) -> Arrays:
    """Return `seen`, bool `(test, attributes)`, and `silhouette`, `(attributes,)`.

    `seen` is the vote of the ten nearest training latents with equal weights of both classes: the
    attribute is predicted if its share among them is above its share in training. The silhouette
    (Rousseeuw 1987) of the test latents ranges from -1 to 1; 0 means that the classes overlap.
    """
    from sklearn.metrics import pairwise_distances, silhouette_score

    distances = pairwise_distances(latents.test)
    np.fill_diagonal(distances, 0.0)
    silhouettes = [
        silhouette_score(distances, labels, metric="precomputed")
        for labels in latents.test_labels.T
    ]
    return {
        "seen": neighbours_see(latents.train, latents.train_labels, latents.test),
        "silhouette": np.array(silhouettes),
    }


def neighbours_see(train: Array, labels: Array, test: Array) -> Array:
    """Return the votes of the nearest training points, bool `(test, attributes)`."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(train))
    near = NearestNeighbors(n_neighbors=count).fit(train).kneighbors(test, return_distance=False)
    shares = labels[near].mean(axis=1)
    return np.asarray(shares > labels.mean(axis=0))


def small_pixels(dataset: ImageDataset, indices: ImageIndices) -> Array:
    """Return images of 12 x 12 pixels as vectors: the baseline for latents."""
    from torch import from_numpy
    from torch.nn.functional import adaptive_avg_pool2d

    images = from_numpy(np.asarray(dataset.images[indices])).float() / 255
    return np.asarray(adaptive_avg_pool2d(images, _SIDE).flatten(1).numpy())


def accuracies(seen: Array, truth: Array) -> Array:
    """Return the balanced accuracy of each attribute, `(attributes,)`."""
    columns = zip(seen.T, truth.T, strict=True)
    return np.array([balanced_accuracy(votes, labels) for votes, labels in columns])


def accuracy_difference(
    original: Array, modified: Array, truth: Array, seed: int = 0
) -> Difference:
    """Return the difference of mean balanced accuracies, with an interval over the test images."""
    value = accuracies(modified, truth).mean() - accuracies(original, truth).mean()
    right = (modified == truth).astype(float) - (original == truth)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=_RESAMPLES)
    have, lack = truth.astype(float), (~truth).astype(float)
    # For each class: the number of images that only modified has right, minus those that only
    # original has right, over the size of the class.
    halves = [weights @ (right * part) / np.maximum(weights @ part, 1) for part in (have, lack)]
    means = ((halves[0] + halves[1]) / 2).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(float(value), float(low), float(high))
