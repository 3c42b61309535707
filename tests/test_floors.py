"""The losses of the mean training image and of PCA, on images whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from nas import floors as module
from nas.datasets import ImageDataset
from nas.floors import Floors, compute_floors
from nas.protocol import TrainingConfig
from nas.ssim import ssim
from search_spaces.space import SearchSpace
from studies.run.floors import latent_sizes
from tests.fakes.dataset import noise

SIDE = 8
VALUES = 3 * SIDE * SIDE
STEP = 20
LEFT, RIGHT = (np.zeros((3, SIDE, SIDE), int) for _ in range(2))
LEFT[..., :4], RIGHT[..., 4:] = 1, 1
CONFIG = TrainingConfig(batch_size=4)


def plane(copies: int = 5) -> ImageDataset:
    """Images 128 + STEP (a LEFT + b RIGHT), a in -3, -1, 1, 3 and b in -1, 1: a plane.

    Both have the mean 0 and are independent; `a` has five times the variance of `b`. So the mean
    image is 128, the first principal component is LEFT and the second RIGHT.
    """
    pairs = list(product((-3, -1, 1, 3), (-1, 1)))
    images = np.stack([128 + STEP * (a * LEFT + b * RIGHT) for a, b in pairs]).astype(np.uint8)
    places = np.arange(copies * len(pairs))
    return replace(
        noise(10, SIDE),
        images=np.concatenate([images] * copies),
        train=places,
        validation=places[: len(pairs)],
        test=places[:2],
    )


def test_the_mean_image_and_pca_of_images_in_a_plane_are_exact() -> None:
    found = compute_floors(plane(), CONFIG, [2, 1, 4])
    half_a_step = STEP / 255 / 2  # of half of the pixels
    assert found.mean.l1 == pytest.approx((2 + 1) * half_a_step, abs=1e-6)
    assert found.pca[1].l1 == pytest.approx(half_a_step, abs=1e-5)
    assert found.pca[2].l1 == pytest.approx(0, abs=1e-5)
    assert found.pca[2].ssim == pytest.approx(1, abs=1e-4)
    assert found.pca[2].reconstruction == pytest.approx(0, abs=1e-4)
    # a^2 is 5 and b^2 is 1, each in half of the pixels: PSNR is a mean over images of the log.
    errors = [STEP**2 * (a**2 + 1) / 2 / 255**2 for a in (3, 1)]
    assert found.mean.psnr_db == pytest.approx(-10 * np.log10(errors).mean(), abs=1e-4)
    assert list(found.pca) == [1, 2, 4]
    assert found.fitted_on == 40
    assert found.absent == {}


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_the_loss_has_the_window_and_the_weight_of_the_study(window: str) -> None:
    config = TrainingConfig.model_validate({"ssim": window, "l1_weight": 2.0})
    data = plane()
    found = compute_floors(data, config, [])
    images = torch.from_numpy(data.images[data.test]).float() / 255
    grey = torch.full_like(images, 128 / 255)
    similarity = float(ssim(grey, images, config.ssim))
    of_test = found.on("test").mean
    assert of_test.ssim == pytest.approx(similarity, abs=1e-6)
    assert of_test.reconstruction == pytest.approx(1 - similarity + 2 * of_test.l1, abs=1e-6)
    assert of_test.total == of_test.reconstruction
    assert of_test != found.mean


def test_reconstructions_are_clipped_to_the_range_of_images() -> None:
    direction = np.ones((3, SIDE, SIDE), int)
    direction[:, 0, :4] = 10
    few = int((direction == 10).sum())
    images = np.stack([128 + a * direction for a in (-5, 5)] * 10)
    beyond = np.where(direction == 1, 255, 128)
    data = replace(
        noise(10, SIDE),
        images=np.concatenate([images, beyond[None]]).astype(np.uint8),
        train=np.arange(20),
        validation=np.array([20]),
    )
    code = 127 * (VALUES - few) / (VALUES - few + 100 * few)
    assert 128 + 10 * code > 255
    l1 = ((127 - code) * (VALUES - few) + 127 * few) / VALUES / 255
    assert compute_floors(data, CONFIG, [1]).pca[1].l1 == pytest.approx(l1, abs=1e-4)


def test_too_few_images_for_a_pca_are_told() -> None:
    found = compute_floors(plane(), CONFIG, [8, 40, 39, 512])
    assert list(found.pca) == [8, 39]
    assert found.absent == {
        40: "it needs 41 training images, and there are 40",
        512: f"the images have only {VALUES} values",
    }


def test_no_latent_size_that_fits_leaves_the_mean_image() -> None:
    found = compute_floors(plane(), CONFIG, [128])
    assert found.pca == {}
    assert list(found.absent) == [128]
    assert found.mean.reconstruction > 0


def test_the_memory_of_the_fit_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FIT_BYTES", 4 * VALUES * 12)
    first, second = (compute_floors(noise(40, SIDE), CONFIG, [4, 20]) for _ in range(2))
    assert first == second
    assert first.fitted_on == 12
    assert first.absent == {20: "it needs 21 training images, and at most 12 fit in memory"}


def test_steps_are_counted_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    compute_floors(plane(), CONFIG, [1], lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_the_sizes_are_those_of_the_space_and_of_the_references() -> None:
    assert latent_sizes(SearchSpace.load("table")) == [16, 128]
    assert latent_sizes(SearchSpace.load("wide").with_fixed(latent_size=24)) == [24, 128]


def test_floors_have_the_values_of_objectives_and_metrics() -> None:
    one: Floors = compute_floors(plane(), CONFIG, [])
    assert one.mean.value("reconstruction_loss") == one.mean.reconstruction
    assert one.mean.value("total_loss") == one.mean.reconstruction
    assert one.mean.value("psnr_db") == one.mean.psnr_db
    assert one.mean.value("params") is None
