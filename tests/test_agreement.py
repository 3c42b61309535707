"""Outputs are judged against float64 by eager's own error, on BatchNorms that do something."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from profiling import backends, engines
from profiling.agreement import LOWER_FLOOR, MULTIPLE, Exact, errors
from profiling.backends import BACKENDS, BFLOAT16, Backend, prepare_backend
from profiling.batch_norms import has_new_batch_norms, randomise_batch_norms
from profiling.errors import ProfilingError

Prepare = Callable[[nn.Module, Any, int], tuple[engines.ForwardPass, str]]


def cancelling() -> tuple[nn.Module, Tensor]:
    """Return a layer whose large terms cancel, so that eager itself is far from float64."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(1000, 50, bias=False)
    model.weight.data = torch.randn(50, 1000, generator=generator) * 100
    return model, torch.randn(4, 1000, generator=generator)


def test_the_error_that_is_allowed_is_a_multiple_of_eager_s_own() -> None:
    model, example = cancelling()
    exact = Exact.of(model, (example,))
    own = exact.own_errors[0]
    assert own > 1e-4  # an absolute limit would refuse eager itself
    assert own == (model(example).double() - model.double()(example.double())).abs().max()

    def off_by(error: float) -> float:
        shifted = exact.outputs[0].clone()
        shifted[0, 0] += error
        return exact.checked_error("engine", lambda values: shifted, (example,))

    extent = (exact.outputs[0].max() - exact.outputs[0].min()).item()
    assert off_by(0.9 * MULTIPLE * own) == pytest.approx(0.9 * MULTIPLE * own / extent)
    with pytest.raises(ProfilingError, match="engine: its output differs from float64's by"):
        off_by(2 * MULTIPLE * own)


def test_rounding_is_allowed_where_eager_has_no_error() -> None:
    exact = Exact.of(nn.Identity(), (torch.full((1, 8), 1000.0),))
    assert exact.own_errors == [0]
    engine = exact.checked_error
    assert engine("e", lambda values: values * (1 + 1e-6), (torch.full((1, 8), 1000.0),)) < 2e-6
    with pytest.raises(ProfilingError, match=r"rounding explains 0\.002: not used"):
        engine("e", lambda values: values * (1 + 3e-6), (torch.full((1, 8), 1000.0),))


def test_a_lower_precision_may_have_the_error_of_its_rounding() -> None:
    example = torch.linspace(1, 3, 100)[None]
    exact = Exact.of(nn.Identity(), (example,))

    def shifted(by: float) -> float:
        return exact.checked_error("e", lambda values: values + by, (example,), lower=True)

    assert shifted(0.15) == pytest.approx(0.075, rel=1e-4)  # of the range 2
    with pytest.raises(ProfilingError, match=r"differs from float64's by 0\.3, .* explains 0\.2"):
        shifted(1.5 * 2 * LOWER_FLOOR)
    noisy = Exact(exact.outputs, [1e-5])  # a network that amplifies rounding
    assert noisy.checked_error("e", lambda values: values + 1, (example,), lower=True) > 0.4


def test_errors_are_infinite_where_outputs_do_not_compare() -> None:
    one, nan = torch.ones(2), torch.full((2,), math.nan)
    assert errors([one], [one + 0.5]) == [0.5]
    assert errors([one, one], [one, one + 0.25]) == [0, 0.25]
    assert errors([one], [torch.ones(3)]) == [math.inf]
    assert errors([one], [one, one]) == [math.inf, math.inf]
    assert errors([nan], [one]) == [math.inf]
    assert errors([nan], [nan]) == [0]
    assert errors([torch.ones(0)], [torch.ones(0)]) == [0]


def test_outputs_that_are_no_numbers_are_equal_or_refused() -> None:
    endless = nn.Linear(2, 2, bias=False)
    endless.weight.data.fill_(math.inf)
    exact = Exact.of(endless, (torch.ones(1, 2),))
    assert exact.checked_error("e", endless, (torch.ones(1, 2),)) == 0
    with pytest.raises(ProfilingError, match="differs from float64's by inf"):
        exact.checked_error("e", lambda values: values, (torch.ones(1, 2),))


def test_a_model_that_cannot_run_in_float64_is_refused() -> None:
    class Single(nn.Linear):
        def forward(self, values: Tensor) -> Tensor:
            return super().forward(values.float())

    with pytest.raises(ProfilingError, match="model: cannot run in float64, by which"):
        Exact.of(Single(2, 2), (torch.ones(1, 2),))


# BatchNorms that hide errors


def block(width: int = 4) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ConvTranspose2d(4, width, 3, padding=1),
            nn.BatchNorm2d(width),
        ).eval()


IMAGES = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def without_norms(model: nn.Module, args: Any, threads: int) -> tuple[engines.ForwardPass, str]:
    return nn.Sequential(*(m for m in model.children() if "Norm" not in type(m).__name__)), ""


def folded_along_inputs(
    model: nn.Module, args: Any, threads: int
) -> tuple[engines.ForwardPass, str]:
    """Scale a transposed convolution's input channels in place of its output channels."""
    layer: Any = model.get_submodule("3")
    norm: Any = model.get_submodule("4")
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var + norm.eps) * norm.weight
        layer.weight.mul_(scale.view(-1, 1, 1, 1))
        layer.bias.copy_((layer.bias - norm.running_mean) * scale + norm.bias)
    model.set_submodule("4", nn.Identity())
    return model, ""


def frozen(model: nn.Module, args: Any, threads: int) -> tuple[engines.ForwardPass, str]:
    from torch._inductor import config

    run, note = engines.compiled(model, args, threads)

    def frozen_run(*args: Tensor) -> Any:
        with config.patch(freezing=True):
            return run(*args)

    return frozen_run, note


def hidden_error(prepare: Prepare, model: nn.Module) -> float:
    """Return the difference from eager on the model as it is."""
    with torch.inference_mode():
        run, _ = prepare(copy.deepcopy(model), (IMAGES,), 1)
        return float((run(IMAGES.clone()) - model(IMAGES)).abs().max())


def require_refused(monkeypatch: pytest.MonkeyPatch, prepare: Prepare) -> None:
    monkeypatch.setitem(BACKENDS, "wrong", Backend("", lambda device: None, prepare))
    model = block()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ProfilingError, match="wrong: its output differs from float64's by"):
        prepare_backend("wrong", model, IMAGES)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("prepare", [without_norms, folded_along_inputs])
def test_an_error_that_new_norms_hide_is_found(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hidden_error(prepare, block()) < 1e-4
    require_refused(monkeypatch, prepare)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="an error of torch 2.13")
def test_inductor_s_freezing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := BACKENDS["compile"].unavailable(torch.device("cpu")):
        pytest.skip(reason)
    assert hidden_error(frozen, block()) < 1e-5
    require_refused(monkeypatch, frozen)
    monkeypatch.setitem(BACKENDS, "frozen", Backend("", lambda device: None, frozen))
    assert prepare_backend("frozen", block(8), IMAGES).max_error < 1e-5  # 4 -> 8 channels is right


def test_the_given_model_is_prepared_and_one_with_other_norms_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    def prepare(model: nn.Module, args: Any, threads: int) -> tuple[engines.ForwardPass, str]:
        seen.append(has_new_batch_norms(model))
        return model, ""

    monkeypatch.setitem(BACKENDS, "seen", Backend("", lambda device: None, prepare))
    model = block()
    ready = prepare_backend("seen", model, IMAGES)
    assert seen == [True, False]
    with torch.inference_mode():
        assert torch.equal(ready.run(IMAGES), model(IMAGES))
    randomise_batch_norms(model, IMAGES)
    prepare_backend("seen", model, IMAGES)
    assert seen == [True, False, False]  # a trained model is judged itself


def test_random_norms_are_near_their_inputs_and_always_the_same() -> None:
    first, second = block(), block()
    deep = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)) for _ in range(40)))
    for model in (first, second):
        model.extend([deep, nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)])
        random = torch.get_rng_state()
        randomise_batch_norms(model, IMAGES)
        assert torch.equal(torch.get_rng_state(), random)
    expected = second.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in first.state_dict().items())
    assert not has_new_batch_norms(first)
    assert not any(module._forward_pre_hooks for module in first.modules())
    norms = [module for module in first.modules() if isinstance(module, nn.BatchNorm2d)]
    assert any(bool((norm.weight < 0).any()) for norm in norms)
    with torch.inference_mode():
        output = deep(first[:5](IMAGES))
    assert 0.1 < output.std() < 10  # neither vanished nor exploded in 42 layers


# Precisions


def test_bfloat16_is_reported_and_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_bfloat16", lambda device: True)
    model = block()
    ready = prepare_backend("eager", model, IMAGES, dtype=BFLOAT16)
    assert 1e-4 < ready.max_error < LOWER_FLOOR
    assert ready.dtype == BFLOAT16
    assert ready.run(IMAGES).dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    wrong = Backend("", lambda device: None, engines.as_it_is, {BFLOAT16: without_norms})
    monkeypatch.setitem(BACKENDS, "wrong", wrong)
    with pytest.raises(ProfilingError, match="wrong: its output differs"):
        prepare_backend("wrong", model, IMAGES, dtype=BFLOAT16)


def test_a_precision_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProfilingError, match="onnxruntime: cannot compute in 'bfloat16': use flo"):
        prepare_backend("onnxruntime", block(), IMAGES, dtype=BFLOAT16)
    with pytest.raises(ProfilingError, match="'bfloat61': use float32 or bfloat16"):
        prepare_backend("eager", block(), IMAGES, dtype="bfloat61")
    monkeypatch.setattr(backends, "has_bfloat16", lambda device: False)
    with pytest.raises(ProfilingError, match="eager: this processor has no instructions for bfl"):
        prepare_backend("eager", block(), IMAGES, dtype=BFLOAT16)
