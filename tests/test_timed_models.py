"""What timed models are fed, and their BatchNorm statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.checkpoint import save_weights
from nas.timed_models import COUNT, INITIAL, TRAINED, TimedImages, timed_model
from nas.vae import build_vae
from profiling.batch_norms import calibrate_batch_norms
from search_spaces.references import MODIFIED, ORIGINAL
from studies.cli.subjects import Subject
from tests.fakes.dataset import noise

SMALL = ORIGINAL.resized(16)


def statistics(norm: nn.BatchNorm2d) -> tuple[float, float]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean.item(), norm.running_var.item()


def test_statistics_are_exactly_those_of_the_batch() -> None:
    inputs = torch.tensor([[[[1.0, 3.0]]], [[[5.0, 7.0]]]])  # mean 4, variance 20 / 3
    first, second = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    model = nn.Sequential(first, second).eval()
    state = torch.get_rng_state()
    for _ in range(2):  # a second time gives the same
        calibrate_batch_norms(model, [inputs])
    mean, variance = statistics(first)
    assert mean == pytest.approx(4)
    assert variance == pytest.approx(20 / 3)
    mean, variance = statistics(second)  # it gets normalised values
    assert mean == pytest.approx(0, abs=1e-6)
    assert variance == pytest.approx(4 / 3, rel=1e-4)  # of n - 1 = 3
    assert first.momentum == 0.1
    assert {model.training, first.training, second.training} == {False}
    assert torch.equal(torch.get_rng_state(), state)
    assert inputs.flatten().tolist() == [1, 3, 5, 7]


def test_a_model_without_batch_norms_is_not_run() -> None:
    calibrate_batch_norms(nn.Linear(3, 3), [torch.rand(2, 99)])


def test_values_keep_their_size_through_a_calibrated_network() -> None:
    images = TimedImages.noise(32)
    model, state = timed_model(MODIFIED.resized(32), images)
    assert state == INITIAL
    found: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.register_forward_hook(lambda _m, _i, out: found.append(out.std().item()))
    with torch.inference_mode():
        model(images.tensor())
    assert len(found) > 50
    assert all(0.9 < std < 1.1 for std in found), found


def test_images_of_a_data_set_are_training_images() -> None:
    dataset = noise(40, 16)
    images = TimedImages.of(dataset)
    assert images.about == f"{COUNT} images of noise 0123456789abcdef"
    assert np.array_equal(images.pixels, dataset.images[dataset.train[:COUNT]])
    tensor = images.tensor()
    assert tensor.dtype == torch.float32
    assert torch.equal((tensor * 255).round().to(torch.uint8), torch.from_numpy(images.pixels))
    assert images.tensor(batch=20).shape[0] == 3 * COUNT, "at least two batches"


def test_noise_stands_in_for_images_of_another_shape() -> None:
    images = TimedImages.of(noise(40, 16))
    assert images.fit(SMALL) is images
    assert images.fit(ORIGINAL.resized(32)) == TimedImages.noise(32)
    assert images.fit(ORIGINAL.resized(32)).pixels.shape == (COUNT, 3, 32, 32)


def test_trained_weights_are_taken_only_if_they_fit(tmp_path: Path) -> None:
    trained, images, path = build_vae(SMALL, seed=5), TimedImages.noise(16), tmp_path / "weights"
    assert timed_model(SMALL, images, weights=path)[1] == INITIAL
    save_weights(trained, path)
    model, state = timed_model(SMALL, images, weights=path)
    assert (state, model.training) == (TRAINED, False)
    assert torch.equal(model.encoder.mean.weight, trained.encoder.mean.weight)
    assert timed_model(MODIFIED.resized(16), images, weights=path)[1] == INITIAL
    path.write_bytes(path.read_bytes()[:-3])
    assert timed_model(SMALL, images, weights=path)[1] == INITIAL


def test_a_profiled_trial_has_its_weights_and_the_images_of_its_study(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts" / SMALL.digest
    folder.mkdir(parents=True)
    samples = noise(8, 16).images
    np.save(folder.parent / "samples.npy", samples)
    save_weights(build_vae(SMALL, seed=5), folder / "weights.safetensors")
    trial = Subject("s#1", SMALL, folder)
    assert trial.weights == folder / "weights.safetensors"
    assert np.array_equal(trial.fed.pixels, samples)
    assert trial.images(3).shape == (3, 3, 16, 16)
    alone = Subject("original@16", SMALL, None)
    assert (alone.weights, alone.fed) == (None, TimedImages.noise(16))
    (folder.parent / "samples.npy").write_bytes(b"garbage")
    assert Subject("s#1", SMALL, folder).fed == TimedImages.noise(16)
