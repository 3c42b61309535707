"""The paper's loss, its terms, and the measures of image quality."""

import math

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.losses import Window, kl_divergence, ms_ssim, psnr, ssim, vae_loss

SIZES = [4, 5, 11, 12, 33, 64, 97, 144]
NEAR = 2**-10


def pair(size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(size)
    first = F.avg_pool2d(torch.rand(2, channels, size, size, generator=generator), 3, 1, 1)
    noise = torch.randn(first.shape, generator=generator)
    return first, (first + 0.1 * noise).clamp(0, 1)


def published_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Return the paper's SSIM by its definition: 11x11 averages that leave the padding out."""

    def average(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 11, stride=1, padding=5, count_include_pad=False)

    mean_1, mean_2 = average(first), average(second)
    variance_1 = average(first * first) - mean_1**2
    variance_2 = average(second * second) - mean_2**2
    covariance = average(first * second) - mean_1 * mean_2
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_1 * mean_2 + c1) / (mean_1**2 + mean_2**2 + c1)
    return (luminance * (2 * covariance + c2) / (variance_1 + variance_2 + c2)).mean()


@pytest.mark.parametrize("size", SIZES)
def test_uniform_ssim_is_the_published_one(size: int) -> None:
    first, second = pair(size)
    assert ssim(first, second, "uniform").item() == pytest.approx(
        published_ssim(first.double(), second.double()).item(), abs=1e-5
    )


@pytest.mark.parametrize("size", [11, 12, 33, 144])
def test_gaussian_ssim_is_that_of_pytorch_msssim(size: int) -> None:
    first, second = pair(size)
    expected = pytorch_msssim.ssim(first, second, data_range=1.0)
    assert ssim(first, second).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("size", "window_size"), [(4, 3), (5, 5), (10, 9)])
def test_gaussian_window_shrinks_to_a_small_image(size: int, window_size: int) -> None:
    first, second = pair(size)
    expected = pytorch_msssim.ssim(first, second, data_range=1.0, win_size=window_size)
    assert ssim(first, second).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_gradient_matches_the_definition(window: Window) -> None:
    first, second = pair(33)
    ours, theirs = second.clone().requires_grad_(), second.double().requires_grad_()
    ssim(ours, first, window).backward()  # type: ignore[no-untyped-call]
    if window == "uniform":
        published_ssim(theirs, first.double()).backward()  # type: ignore[no-untyped-call]
    else:
        pytorch_msssim.ssim(theirs, first.double(), data_range=1.0).backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-6, rtol=1e-3)


def test_memory_layout_changes_nothing() -> None:
    first, second = pair(33)
    expected = ssim(first, second)
    assert ssim(first.to(memory_format=torch.channels_last), second) == expected


@pytest.mark.parametrize("size", [97, 100, 144])
def test_ms_ssim_is_that_of_pytorch_msssim(size: int) -> None:
    first, second = pair(size)
    expected = pytorch_msssim.ms_ssim(first, second, data_range=1.0, win_size=7)
    assert ms_ssim(first, second).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_ms_ssim_of_any_size_is_a_similarity(size: int) -> None:
    first, second = pair(size)
    assert ms_ssim(first, first).item() == pytest.approx(1, abs=1e-5)
    assert 0 < ms_ssim(first, second) < 1
    assert ms_ssim(first, 1 - first) == 0  # negative correlation counts as none, not as NaN


def test_small_images_weigh_the_scales_they_have() -> None:
    # 10 pixels hold a window of 7 once: one scale, whose weight is then the sum of all five.
    first, second = pair(10)
    expected = pytorch_msssim.ssim(first, second, data_range=1.0, win_size=7, size_average=False)
    per_channel = [
        pytorch_msssim.ssim(first[:, c : c + 1], second[:, c : c + 1], data_range=1.0, win_size=7)
        for c in range(3)
    ]
    assert sum(per_channel).item() / 3 == pytest.approx(expected.mean().item(), abs=1e-5)
    assert ms_ssim(first, second).item() == pytest.approx(expected.mean().item(), abs=2e-4)


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


def test_filters_made_in_inference_mode_serve_training() -> None:
    first, second = pair(21)  # a size that no other test has cached
    with torch.inference_mode():
        ssim(first, second)
    second.requires_grad_()
    ssim(first, second).backward()  # type: ignore[no-untyped-call]
    assert second.grad is not None


def test_dark_images_show_the_constants_of_ssim() -> None:
    first, second = torch.full((1, 1, 12, 12), 0.01), torch.full((1, 1, 12, 12), 0.02)
    # Only the luminance is left: (2 x 0.01 x 0.02 + 0.0001) / (0.0001 + 0.0004 + 0.0001).
    for window in ("gaussian", "uniform"):
        assert ssim(first, second, window).item() == pytest.approx(5 / 6, abs=1e-4)
    faint, other = (0.05 * image for image in pair(33))
    expected = published_ssim(faint.double(), other.double()).item()
    assert ssim(faint, other, "uniform").item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8), (33, 48)])
def test_oblong_images(height: int, width: int) -> None:
    first, second = (image[:, :, :height, :width] for image in pair(48))
    fits = min(11, height - 1 + height % 2, width - 1 + width % 2)
    expected = pytorch_msssim.ssim(first, second, data_range=1.0, win_size=fits)
    assert ssim(first, second).item() == pytest.approx(expected.item(), abs=1e-5)
    expected = published_ssim(first.double(), second.double())
    assert ssim(first, second, "uniform").item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(200, 200), (97, 120), (120, 97)])
def test_ms_ssim_has_five_scales_at_most_and_asks_the_shorter_side(height: int, width: int) -> None:
    first, second = (image[:1, :1, :height, :width] for image in pair(200))
    second = second / 2  # so that luminance, which the last scale alone tells, differs
    expected = pytorch_msssim.ms_ssim(first, second, data_range=1.0, win_size=7)
    assert ms_ssim(first, second).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize(("size", "share"), [(7, 1), (14, 0.2856 / 0.3304), (28, 0.3001 / 0.6305)])
def test_the_last_of_fewer_scales_weighs_its_share_of_them(size: int, share: float) -> None:
    # Constant images agree in contrast, so what is left is the luminance at the last scale.
    first, second = torch.full((1, 1, size, size), 0.01), torch.full((1, 1, size, size), 0.02)
    assert ms_ssim(first, second).item() == pytest.approx((5 / 6) ** (1.0001 * share), abs=1e-4)


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


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.sampled_from([4, 12, 33]))
def test_ssim_of_flat_images_is_that_of_float64(first: float, second: float, size: int) -> None:
    images = [torch.full((1, 1, size, size), level) for level in (first, second)]
    expected = (2 * first * second + 1e-4) / (first**2 + second**2 + 1e-4)  # the luminance
    for window in ("gaussian", "uniform"):
        found = ssim(images[0], images[1], window).item()
        assert found <= 1
        assert found == pytest.approx(expected, abs=2e-6)


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


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_no_window_of_a_reconstruction_exceeds_one(window: Window) -> None:
    first = torch.full((1, 3, 64, 64), 0.9)
    first[..., 32:] = 0.2
    for step in range(1, 40):
        assert ssim(first, first + step * 1e-5, window) <= 1
