"""int8: what is quantised, where its images come from, and how it is judged."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nas.deploy.quality import HeldOut
from nas.lower_precision import calibration_of, loss_cost
from nas.protocol import TrainingConfig
from nas.setups import Engines, SetUp
from nas.vae import build_vae
from profiling import comparison, engines
from profiling.agreement import Exact
from profiling.backends import BACKENDS, INT8, Backend, Int8, prepare_backend
from profiling.comparison import compare_backends
from profiling.errors import ProfilingError
from profiling.lane import Lane
from profiling.latency import LatencyConfig
from search_spaces.references import ORIGINAL
from studies.config.study import StudyConfig
from tests.fakes.dataset import noise as noise_images
from tests.helpers.command import nas

CPU = torch.device("cpu")
SMALL = ORIGINAL.resized(16)
QUICK = LatencyConfig(min_rounds=2, max_rounds=2, warmup_window=1, max_warmup=2, min_sample_ms=0)
IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def upsampling() -> nn.Module:
    """Return one convolution, one transposed convolution and one linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 4),
        ).eval()


def needs(backend: str) -> None:
    if reason := BACKENDS[backend].reason_against(CPU, INT8):
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("backend", "remark"),
    [
        ("openvino", ""),
        ("onnxruntime", "stays in floating point: 1 x transposed convolution"),
        ("onnxruntime_rewritten", "1 x transposed convolution made plain"),
    ],
)
@pytest.mark.slow
def test_layers_are_quantised_and_the_others_are_counted(
    backend: str, remark: str, capfd: pytest.CaptureFixture[str]
) -> None:
    needs(backend)
    model = upsampling()
    before, kind = os.environ.get("NNCF_CI"), logging.getLoggerClass()
    ready = prepare_backend(backend, model, IMAGES[:1], dtype=INT8, calibration=IMAGES)
    assert ready.note == remark
    assert 1e-5 < ready.max_error < 0.1  # neither in float32 nor wrong
    assert (os.environ.get("NNCF_CI"), logging.getLoggerClass()) == (before, kind)
    assert logging.root.manager.disable == logging.NOTSET
    assert capfd.readouterr() == ("", "")


def test_int8_without_images_is_refused() -> None:
    needs("onnxruntime")
    with pytest.raises(ProfilingError, match="onnxruntime: int8 needs calibration images"):
        prepare_backend("onnxruntime", upsampling(), IMAGES[:1], dtype=INT8)
    with pytest.raises(ProfilingError, match="eager: cannot compute in 'int8': use float32 or"):
        prepare_backend("eager", upsampling(), IMAGES[:1], dtype=INT8, calibration=IMAGES)


def test_what_quantises_has_an_extra_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name)
    )
    needs("onnxruntime")
    backend = BACKENDS["openvino_rewritten"]
    assert backend.reason_against(CPU, INT8) == "needs nncf: pip install 'vae-nas[deploy]'"
    assert backend.reason_against(CPU) is None


def test_a_merged_upsampling_does_not_pay_in_int8() -> None:
    backend = BACKENDS["openvino_rewritten"]
    assert set(backend.rewrites_in("float32")) - set(backend.rewrites_in(INT8)) == {"upsampling"}


def test_the_version_of_what_quantises_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.setups.version", lambda name: "1.2")
    found = SetUp(backend="openvino", precision="int8").runtime
    assert found == "openvino 1.2, nncf 1.2"
    assert SetUp(backend="onnxruntime", precision="int8").runtime == "onnxruntime 1.2"


def test_an_output_that_is_no_number_is_refused() -> None:
    model, args = nn.Linear(2, 2).eval(), (torch.ones(1, 2),)
    exact = Exact.of(model, args)
    assert exact.finite_error("x", lambda one: model(one) + 100, args) > 10
    with pytest.raises(ProfilingError, match="x: its output is not that of this model"):
        exact.finite_error("x", lambda one: model(one) * math.nan, args)
    with pytest.raises(ProfilingError, match="x: its output is not that of this model"):
        exact.finite_error("x", lambda one: model(one)[:, :1], args)


def test_int8_is_compared_only_with_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def prepare(
        model: nn.Module, args: Any, threads: int, batches: Any
    ) -> tuple[Callable[..., Any], str]:
        seen.extend(batches)
        return model, ""

    plain = Backend("", lambda device: None, engines.as_it_is, int8=Int8(prepare))
    monkeypatch.setitem(BACKENDS, "made", plain)
    monkeypatch.setattr(comparison, "has_bfloat16", lambda device: False)

    def rows(**images: Any) -> list[tuple[str, str, float | None]]:
        found = compare_backends(nn.Linear(2, 2), torch.rand(1, 2), ["made"], QUICK, **images)
        return [(row.name, row.dtype, row.loss_cost) for row in found]

    eager, float32 = ("eager", "float32", None), ("made", "float32", None)
    assert rows() == [eager, float32]
    assert seen == []
    calibration = torch.rand(3, 2)
    found = rows(calibration=calibration, loss_cost=lambda run: 0.5)
    assert found == [eager, float32, ("made", "int8", 0.5)]
    assert torch.equal(torch.cat([batch[0] for batch in seen]), calibration)


def test_the_cost_is_the_increase_of_the_loss_on_validation_images() -> None:
    model, dataset = build_vae(SMALL, seed=0).eval(), noise_images(20, 16)
    images, noise = calibration_of(model, dataset)
    assert torch.equal(images, torch.from_numpy(dataset.images[dataset.train]).float() / 255)
    assert noise.shape == (len(images), SMALL.latent_size)
    cost = loss_cost(model, dataset, TrainingConfig(), 2, CPU)
    assert cost(model) == pytest.approx(0, abs=1e-6)
    batches: list[int] = []

    def black(images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        batches.append(len(images))
        assert not noise.any()
        rebuilt, mean, log_variance = model(images, noise)
        return torch.zeros_like(rebuilt), mean, log_variance

    found = cost(black)
    assert found > 0.01
    assert set(batches) == {2}
    # One judge serves deploying too: the window, the weight of L1 and single images count.
    zeros = torch.zeros(1, SMALL.latent_size)
    held_out = torch.from_numpy(dataset.images[dataset.validation]).float() / 255
    for changes in ({"ssim": "uniform"}, {"l1_weight": 5.0}):
        training = TrainingConfig.model_validate(changes)
        other = loss_cost(model, dataset, training, 2, CPU)(black)
        assert abs(other - found) > 1e-4
        judge = HeldOut(held_out, lambda image: model(image, zeros), training)
        assert judge.judge(lambda image: black(image, zeros)).cost == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"latency": {"backend": "openvino", "precision": "int8"}}, "latency.precision"),
        (
            {"setups": {"board": {"backend": "onnxruntime", "precision": "int8"}}},
            "setups.board.precision",
        ),
    ],
)
def test_a_study_without_images_has_no_int8(changes: dict[str, Any], key: str) -> None:
    given = {"name": "s", "space": "tiny", **changes}
    with pytest.raises(ValueError, match=f"{key}: int8 takes the ranges of values from training"):
        StudyConfig.model_validate({**given, "objectives": ["params", "latency_ms"]})
    asked = {**given, "objectives": ["reconstruction_loss", "latency_ms"]}
    found = StudyConfig.model_validate(asked).all_setups.values()
    assert INT8 in {setup.precision for setup in found}


def test_engines_of_a_study_are_calibrated_on_the_timed_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[Any] = []

    class Ready:
        run = staticmethod(lambda *args: args)

    def prepare(*args: Any) -> Ready:
        given.append(args[-1])
        return Ready()

    monkeypatch.setattr("nas.setups.prepare_backend", prepare)
    images, noise = torch.rand(4, 3, 16, 16), torch.rand(4, SMALL.latent_size)
    for precision in ("int8", "float32"):
        setup = SetUp.model_validate({"backend": "onnxruntime", "precision": precision})
        Engines(setup, CPU, Lane("cpu"))("candidate", build_vae(SMALL), (images, noise))
    assert [torch.equal(a, b) for a, b in zip(given[0], (images, noise), strict=True)] == [True] * 2
    assert given[1] is None


@pytest.mark.slow
def test_the_command_takes_images_from_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnxruntime")
    rng, folder = np.random.default_rng(0), tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    command = ["profile", "backends", "original@16", "--backends", "onnxruntime"]
    command += ["--seconds", "0.1"]
    assert nas(*command, "--images", str(folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:2] == ["onnxruntime", "int8"] for line in lines)
    assert not any("int8 needs images" in line for line in lines)
    assert nas(*command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.split()[:2] == ["onnxruntime", "int8"] for line in lines)
    assert "int8 needs images: give --images FOLDER, or a trained trial STUDY#TRIAL" in lines
    assert nas(*command, "--images", str(tmp_path / "none")) == 2
    assert capsys.readouterr().err.startswith("nas: --images: ")
