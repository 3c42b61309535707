"""The losses of two predictors without a network, by which trained models are judged.

The mean training image is the best constant picture in the sense of least squares; a model whose
loss is not lower has learned nothing. The principal component analysis (PCA) with as many
components as a model has latent variables is the best linear autoencoder in the same sense (Baldi
and Hornik 1989). It pays no KL divergence and samples no latent, so a VAE need not reach it, but it
says what a latent of that size can hold.

This module needs torch and scikit-learn only to compute the losses, not to read them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from nas.findings import QUALITY_FIELDS

if TYPE_CHECKING:  # reading a study needs no torch, which these import
    from torch import Tensor

    from nas.datasets.dataset import ImageDataset, ImageIndices
    from nas.protocol import TrainingConfig

Part = Literal["validation", "test"]
"""The images on which a loss was computed."""

LARGEST_FIT_BYTES = 10**9
"""Largest size of the array of training images to which a PCA is fitted."""

_READ_BYTES = 64 * 2**20  # of images that are read at a time
_SEED = 0  # of the choice of training images, and of the randomized solver


@dataclass(frozen=True)
class Floor:
    """Metrics of one predictor, means over images, as in `nas.protocol.Quality`.

    Reconstructions are clipped to [0, 1]. The KL divergence is 0, so the total loss is the
    reconstruction loss.
    """

    reconstruction: float
    ssim: float
    l1: float
    psnr_db: float
    ms_ssim: float

    @property
    def total(self) -> float:
        """Total loss: the reconstruction loss, because the KL divergence is 0."""
        return self.reconstruction

    def value(self, name: str) -> float | None:
        """Return the value of an objective or metric of trials; None if it has none."""
        found: float | None = getattr(self, QUALITY_FIELDS.get(name, name), None)
        return found


@dataclass(frozen=True)
class PartFloors:
    """The floors on the images of one part.

    Attributes:
        mean: The mean training image.
        pca: PCA reconstructions by the number of components, in ascending order.
    """

    mean: Floor
    pca: Mapping[int, Floor]


@dataclass(frozen=True)
class Floors:
    """The floors of a study.

    Attributes:
        fitted_on: Number of training images to which the PCA was fitted.
        validation: The floors on the validation images.
        test: The floors on the test images.
        absent: By latent size, why there is no PCA of that size.
        part: The images on which the losses that are compared with the floors were computed.
    """

    fitted_on: int
    validation: PartFloors
    test: PartFloors
    absent: Mapping[int, str]
    part: Part = "validation"

    def on(self, part: Part) -> Floors:
        """Return the floors for losses that were computed on the images of this part."""
        return replace(self, part=part)

    @property
    def mean(self) -> Floor:
        """The mean training image, on the images of `part`."""
        return self._of_part.mean

    @property
    def pca(self) -> Mapping[int, Floor]:
        """PCA reconstructions by latent size, on the images of `part`."""
        return self._of_part.pca

    @property
    def _of_part(self) -> PartFloors:
        return self.validation if self.part == "validation" else self.test

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types: all but `part`, which depends on what is compared with them."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))  # keys become texts
        del plain["part"]
        return plain

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Return the floors that `to_dict` described, for losses on the validation images.

        Raises:
            LookupError, TypeError, ValueError: `stored` describes no floors.
        """
        return cls(
            fitted_on=stored["fitted_on"],
            validation=_part_floors(stored["validation"]),
            test=_part_floors(stored["test"]),
            absent={int(size): reason for size, reason in stored["absent"].items()},
        )


def _part_floors(stored: Mapping[str, Any]) -> PartFloors:
    sizes = sorted((int(size), values) for size, values in stored["pca"].items())
    return PartFloors(_floor(stored["mean"]), {size: _floor(values) for size, values in sizes})


def _floor(stored: Mapping[str, float]) -> Floor:
    return Floor(**{field.name: stored[field.name] for field in fields(Floor)})


def compute_floors(
    dataset: ImageDataset,
    config: TrainingConfig,
    sizes: Collection[int],
    on_step: Callable[[int, int], None] | None = None,
) -> Floors:
    """Compute the losses of the mean training image and of PCA reconstructions.

    One PCA with the largest possible number of components serves all sizes. It is fitted by
    scikit-learn's randomized solver to all training images, or to as many as
    `LARGEST_FIT_BYTES` hold in float32, which are drawn with a fixed seed.

    Args:
        dataset: The images.
        config: The training settings: window and weights of the loss, batch size.
        sizes: Latent sizes.
        on_step: Called after each step with (done, total) steps.
    """
    import torch

    fitted = _fitted_images(dataset)
    most = min(len(fitted) - 1, _pixels(dataset))
    wanted = sorted(set(sizes))
    possible = [size for size in wanted if size <= most]
    step = _Steps(_steps(dataset, fitted, config.batch_size), on_step)
    with torch.inference_mode():
        mean = _mean_image(dataset, step)
        pca = _fit(dataset, fitted, possible[-1], step) if possible else None

        def floors(indices: ImageIndices) -> PartFloors:
            return _floors(dataset, indices, config, _Predictors(mean, possible, pca), step)

        return Floors(
            fitted_on=len(fitted),
            validation=floors(dataset.validation),
            test=floors(dataset.test),
            absent={size: _too_large(size, dataset, fitted) for size in wanted if size > most},
        )


@dataclass(frozen=True)
class _Predictors:
    """The predictors, in float32.

    Attributes:
        mean: The mean training image, `(channels, height, width)`.
        sizes: Numbers of components, ascending.
        pca: Mean `(pixels,)` and components `(sizes[-1], pixels)`; None where `sizes` is empty.
    """

    mean: Tensor
    sizes: Sequence[int]
    pca: tuple[Tensor, Tensor] | None

    def rebuilt(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the images as the mean and then as each PCA rebuilds them."""
        yield self.mean.expand_as(images)
        if self.pca is None:
            return
        middle, components = self.pca
        codes = (images.flatten(1) - middle) @ components.T
        flat, before = middle.expand(len(images), -1), 0
        for size in self.sizes:  # the components of a smaller PCA are the first of a larger one
            flat = flat + codes[:, before:size] @ components[before:size]
            before = size
            yield flat.clamp(0, 1).reshape(images.shape)


class _Steps:
    """Counts the steps of a computation and reports them."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._report = 0, total, report

    def __call__(self) -> None:
        self._done += 1
        if self._report:
            self._report(self._done, self._total)


def _steps(dataset: ImageDataset, fitted: ImageIndices, batch_size: int) -> int:
    """Return the number of steps: chunks that are read, the fit, batches that are evaluated."""
    from nas.protocol import batches_of

    parts = (dataset.validation, dataset.test)
    evaluated = sum(len(batches_of(part, batch_size)) for part in parts)
    read = sum(len(_chunks(dataset, part)) for part in (dataset.train, fitted))
    return read + 1 + evaluated


def _fitted_images(dataset: ImageDataset) -> ImageIndices:
    """Return the training images to which the PCA is fitted, in ascending order."""
    most = max(2, LARGEST_FIT_BYTES // (4 * _pixels(dataset)))
    if len(dataset.train) <= most:
        return np.sort(dataset.train)
    return np.sort(np.random.default_rng(_SEED).choice(dataset.train, most, replace=False))


def _mean_image(dataset: ImageDataset, step: Callable[[], None]) -> Tensor:
    import torch

    total = np.zeros(dataset.images.shape[1:])
    for part in _chunks(dataset, np.sort(dataset.train)):
        total += dataset.images[part].sum(axis=0, dtype=np.float64)
        step()
    return torch.from_numpy((total / (255 * len(dataset.train))).astype(np.float32))


def _fit(
    dataset: ImageDataset, fitted: ImageIndices, count: int, step: Callable[[], None]
) -> tuple[Tensor, Tensor]:
    """Return the mean and the first `count` principal components of some images."""
    import torch
    from sklearn.decomposition import PCA

    pixels = np.empty((len(fitted), _pixels(dataset)), np.float32)
    read = 0
    for part in _chunks(dataset, fitted):
        rows = pixels[read : read + len(part)]
        np.divide(dataset.images[part].reshape(rows.shape), 255, out=rows, dtype=np.float32)
        read += len(part)
        step()
    # The array is centred in place: a copy would double the memory.
    pca = PCA(count, copy=False, svd_solver="randomized", random_state=_SEED).fit(pixels)
    step()
    return torch.from_numpy(pca.mean_), torch.from_numpy(pca.components_)


def _floors(
    dataset: ImageDataset,
    indices: ImageIndices,
    config: TrainingConfig,
    predictors: _Predictors,
    step: Callable[[], None],
) -> PartFloors:
    import torch

    from nas.protocol import batches_of, load_batch

    sums = np.zeros((1 + len(predictors.sizes), len(fields(Floor))))
    for part in batches_of(indices, config.batch_size):
        images = load_batch(dataset, part, config, torch.device("cpu"))
        rows = [_metrics(one, images, config) for one in predictors.rebuilt(images)]
        sums += len(part) * np.array(rows)
        step()
    mean, *pca = (Floor(*row) for row in (sums / len(indices)).tolist())
    return PartFloors(mean, dict(zip(predictors.sizes, pca, strict=True)))


def _metrics(rebuilt: Tensor, images: Tensor, config: TrainingConfig) -> list[float]:
    """Return the fields of `Floor`, means over the images of a batch."""
    from nas.losses import psnr, vae_loss
    from nas.ssim import ms_ssim

    no_latent = images.new_zeros(len(images), 1)  # N(0, 1): its KL divergence is 0
    terms = vae_loss(
        rebuilt, images, no_latent, no_latent, window=config.ssim, l1_weight=config.l1_weight
    )
    found = (terms.reconstruction, terms.ssim, terms.l1)
    return [float(one) for one in (*found, psnr(rebuilt, images), ms_ssim(rebuilt, images))]


def _too_large(size: int, dataset: ImageDataset, fitted: ImageIndices) -> str:
    """Return why there is no PCA with so many components."""
    if size > _pixels(dataset):
        return f"the images have only {_pixels(dataset):,} values"
    bounded = len(fitted) < len(dataset.train)
    have = f"at most {len(fitted):,} fit in memory" if bounded else f"there are {len(fitted):,}"
    return f"it needs {size + 1:,} training images, and {have}"


def _pixels(dataset: ImageDataset) -> int:
    """Return the number of values of an image: channels x height x width."""
    return math.prod(dataset.images.shape[1:])


def _chunks(dataset: ImageDataset, indices: ImageIndices) -> list[ImageIndices]:
    """Split indices into parts whose images are read at a time."""
    size = max(1, _READ_BYTES // _pixels(dataset))
    return np.split(indices, range(size, len(indices), size))
