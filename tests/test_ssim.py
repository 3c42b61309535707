"""SSIM and MS-SSIM: the definitions, the gradients, and every form in which they are computed."""

from collections.abc import Callable
from unittest import mock

import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nas.ssim import Window, ms_ssim, ssim

SIZES = [4, 5, 11, 12, 33, 64, 97, 144]
WINDOWS: list[Window] = ["gaussian", "uniform"]


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


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("height", "width"), [(5, 5), (12, 14), (13, 11)])
def test_the_gradient_is_that_of_the_value(window: Window, height: int, width: int) -> None:
    first, second = (image[:, :2, :height, :width].double() for image in pair(14))
    first.requires_grad_()
    assert torch.autograd.gradcheck(lambda images: ssim(images, second, window), (first,))
    second.requires_grad_()
    assert torch.autograd.gradcheck(lambda one, other: ssim(one, other, window), (first, second))


def test_ms_ssim_has_the_gradient_of_its_value() -> None:
    first, second = (image[:, :1].double() for image in pair(14))
    assert torch.autograd.gradcheck(ms_ssim, (first.requires_grad_(), second))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("height", "width"), [*zip(SIZES, SIZES, strict=True), (8, 20), (48, 33)])
def test_convolutions_and_matrices_compute_the_same(
    window: Window, height: int, width: int
) -> None:
    whole = pair(max(height, width))
    first, second = (image[:, :, :height, :width] for image in whole)
    found = []
    for dtype in (torch.float32, torch.float64):  # only the former is computed by convolutions
        images = first.to(dtype, copy=True).requires_grad_()
        value = ssim(images, second.to(dtype), window)
        (3 * value).backward()  # type: ignore[no-untyped-call]
        assert images.grad is not None
        found.append((value.double(), images.grad.double()))
    (value, gradient), (expected, of_float64) = found
    torch.testing.assert_close(value, expected, atol=2e-7, rtol=0)
    torch.testing.assert_close(gradient, of_float64, atol=2e-5 / first.numel(), rtol=2e-4)


@pytest.mark.parametrize("measure", [ssim, ms_ssim])
def test_shapes_are_broadcast_or_refused(measure: Callable[[Tensor, Tensor], Tensor]) -> None:
    first, second = pair(24)
    expected = measure(first[:1].expand_as(second).contiguous(), second)
    assert measure(first[:1], second) == pytest.approx(expected.item(), abs=1e-6)
    assert measure(second, first[:1]) == pytest.approx(expected.item(), abs=1e-6)
    one = first[:1].clone().requires_grad_()
    measure(one, second).backward()  # type: ignore[no-untyped-call]
    whole = first[:1].expand_as(second).clone().requires_grad_()
    measure(whole, second).backward()  # type: ignore[no-untyped-call]
    assert one.grad is not None
    assert whole.grad is not None
    torch.testing.assert_close(one.grad, whole.grad.sum(dim=0, keepdim=True))
    with pytest.raises(RuntimeError, match="must match"):
        measure(torch.rand(2, 3, 24, 24), torch.rand(3, 2, 24, 24))


@pytest.mark.parametrize("here", [True, False])
def test_windows_are_convolutions_where_onednn_computes(
    here: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair(33)
    expected = ssim(first.double(), second.double()).item()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: here)
    with mock.patch.object(F, "conv2d", wraps=F.conv2d) as convolution:
        assert ssim(first, second).item() == pytest.approx(expected, abs=1e-6)
        assert convolution.called == here
        ssim(first.double(), second.double())
    assert {call.args[0].dtype for call in convolution.call_args_list} <= {torch.float32}


def test_the_gradient_has_the_layout_of_the_images() -> None:
    first, second = pair(33)
    contiguous = first.clone().requires_grad_()
    innermost = first.contiguous(memory_format=torch.channels_last).requires_grad_()
    for images in (contiguous, innermost):
        ssim(images, second).backward()  # type: ignore[no-untyped-call]
    assert contiguous.grad is not None
    assert innermost.grad is not None
    assert torch.equal(contiguous.grad, innermost.grad)
    assert innermost.grad.is_contiguous(memory_format=torch.channels_last)


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


def test_one_scale_has_the_window_of_the_shorter_side() -> None:
    first, second = (image[:1, :1, :20, :5] for image in pair(24))
    expected = pytorch_msssim.ssim(first, second, data_range=1.0, win_size=5)
    assert ms_ssim(first, second).item() == pytest.approx(expected.item(), abs=2e-4)


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


@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32), st.sampled_from([4, 12, 33]))
def test_ssim_of_flat_images_is_that_of_float64(first: float, second: float, size: int) -> None:
    images = [torch.full((1, 1, size, size), level) for level in (first, second)]
    expected = (2 * first * second + 1e-4) / (first**2 + second**2 + 1e-4)  # the luminance
    for window in ("gaussian", "uniform"):
        found = ssim(images[0], images[1], window).item()
        assert found <= 1
        assert found == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_no_window_of_a_reconstruction_exceeds_one(window: Window) -> None:
    first = torch.full((1, 3, 64, 64), 0.9)
    first[..., 32:] = 0.2
    for step in range(1, 40):
        assert ssim(first, first + step * 1e-5, window) <= 1
