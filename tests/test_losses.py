"""The paper's loss, its terms, and the measures of image quality."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas.losses import kl_divergence, psnr, vae_loss

NEAR = 2**-10


def test_psnr_of_a_constant_error() -> None:
    image = torch.full((2, 3, 4, 4), 0.5)
    assert psnr(image, image + 0.1).item() == pytest.approx(20, abs=1e-3)
    assert psnr(image, image).item() == pytest.approx(100)


def test_psnr_averages_images_not_errors() -> None:
    image = torch.zeros(2, 1, 2, 2)
    other = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.001)])
    assert psnr(image, other).item() == pytest.approx((20 + 60) / 2, abs=1e-3)


def test_psnr_is_of_an_images_mean_error_not_of_its_pixels() -> None:
    image = torch.zeros(1, 1, 2, 2)
    half = torch.tensor([[[[0.1, 0.1], [0.0, 0.0]]]])
    # The mean squared error is 0.005; averaged pixel by pixel it would be (20 + 100) / 2 = 60 dB.
    assert psnr(image, half).item() == pytest.approx(-10 * math.log10(0.005), abs=1e-3)


def test_kl_sums_the_latent_and_averages_the_batch() -> None:
    # 0.5 (1 + 1 - 1 - 0) per value with mean 1; 0.5 (4 - 1 - ln 4) per value with variance 4.
    mean = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    log_variance = torch.tensor([[0.0, 0.0], [math.log(4), math.log(4)]])
    expected = (2 * 0.5 + 2 * 0.5 * (3 - math.log(4))) / 2
    assert kl_divergence(mean, log_variance).item() == pytest.approx(expected)


def test_loss_is_the_weighted_sum_of_its_terms() -> None:
    images, rebuilt = torch.full((2, 3, 12, 12), 0.5), torch.full((2, 3, 12, 12), 0.7)
    terms = vae_loss(rebuilt, images, torch.ones(2, 4), torch.zeros(2, 4), window="uniform")
    # Constant images: only the luminance of SSIM is left.
    similarity = (2 * 0.35 + 1e-4) / (0.49 + 0.25 + 1e-4)
    assert terms.ssim.item() == pytest.approx(similarity, abs=1e-3)
    assert terms.l1.item() == pytest.approx(0.2)
    assert terms.kl.item() == pytest.approx(2)
    assert terms.reconstruction.item() == pytest.approx(1 - terms.ssim.item() + 0.1)
    assert terms.total.item() == pytest.approx(terms.reconstruction.item() + 0.002)


@given(
    st.lists(st.floats(-NEAR, NEAR, width=32), min_size=1, max_size=128),
    st.floats(-NEAR, NEAR, width=32),
)
def test_kl_of_a_nearly_standard_posterior_is_that_of_float64(
    log_variances: list[float], mean: float
) -> None:
    log_variance = torch.tensor([log_variances])
    means = torch.full_like(log_variance, mean)
    excess = log_variance.double().expm1() - log_variance.double()
    expected = 0.5 * (means.double().square() + excess).sum().item()
    found = kl_divergence(means, log_variance).item()
    assert found >= 0
    # Each value loses at most two units in the last place of the log-variance. The square of a mean
    # below 1e-19 is 0 in float32.
    allowed = 2.4e-7 * log_variance.abs().sum().item() + 1e-36
    assert found == pytest.approx(expected, rel=1e-6, abs=allowed)


def test_kl_near_its_minimum() -> None:
    # 128 values: 64 (1e-5^2 / 2 + 1e-5^3 / 6 + ...) from the variance and 64 x 1e-5^2 of the mean.
    near = torch.full((3, 128), 1e-5)
    assert kl_divergence(near, near).item() == pytest.approx(9.6e-9, rel=1e-3)
    assert kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_kl_has_the_gradient_of_its_definition() -> None:
    mean, log_variance = (torch.randn(2, 5, requires_grad=True) for _ in range(2))
    kl_divergence(mean, log_variance).backward()  # type: ignore[no-untyped-call]
    assert mean.grad is not None
    assert log_variance.grad is not None
    torch.testing.assert_close(mean.grad, mean.detach() / 2)
    torch.testing.assert_close(log_variance.grad, (log_variance.detach().exp() - 1) / 4)


@given(st.floats(0, 1, width=32), st.floats(-NEAR, NEAR, width=32))
def test_nearly_equal_flat_images_have_a_precise_ssim(level: float, shift: float) -> None:
    first, second = torch.full((2, 3, 32, 32), level), torch.full((2, 3, 32, 32), level + shift)
    one, other = first[0, 0, 0, 0].double(), second[0, 0, 0, 0].double()
    unlikeness = ((one - other) ** 2 / (one**2 + other**2 + 1e-4)).item()
    zeros = torch.zeros(2, 4)
    for window in ("gaussian", "uniform"):
        terms = vae_loss(second, first, zeros, zeros, window=window)
        assert 1 - terms.ssim.item() == pytest.approx(unlikeness, abs=1e-6)
        assert terms.total >= 0
