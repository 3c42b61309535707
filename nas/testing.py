"""Contract tests for objectives, losses, data sets, recipes and blocks of the user's own.

Call these functions from the tests of the package that defines the parts:

    from nas.testing import check_objective

    def test_sharpness() -> None:
        check_objective("vae_extras.metrics:sharpness")

Each function takes an import string, or the function itself, and raises `UserError` or
`AssertionError` with one line that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.datasets import load_dataset
from nas.datasets.dataset import DataConfig, ImageDataset
from nas.evaluate import static_costs
from nas.findings import CandidateFailed
from nas.layers import DOWNSAMPLING, UPSAMPLING
from nas.own.imports import source_digest
from nas.own.losses import ARGUMENTS, find_loss
from nas.own.objectives import find_objective
from nas.own.recipes import find_recipe
from nas.vae import VAE, build_vae
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.import_strings import import_string_of
from search_spaces.references import ORIGINAL

__all__ = ["check_block", "check_dataset", "check_loss", "check_objective", "check_recipe"]

Part = str | Callable[..., Any]
"""An import string, or the function that it names."""

COUNT = 8
"""Number of random images."""


def check_objective(part: Part, image_size: int = 32, channels: int = 3) -> None:
    """Check an objective: signature, a finite number, equal for equal input, input unchanged.

    A measured objective may return another number at each call.

    Args:
        part: The objective.
        image_size: Side of the random images in pixels.
        channels: Their channels: 3 or 1.

    Raises:
        UserError, AssertionError: it does not meet the contract.
    """
    name = _name(part)
    own = find_objective(name)
    cost, images = own.definition.cost, _images(image_size, channels)
    original = ORIGINAL.resized(image_size, channels)
    with torch.device("meta" if cost == "static" else "cpu"):
        model = build_vae(original).eval()
    rebuilt = 0.9 * images + 0.05
    arguments = {
        "static": (model,),
        "device": (model, images),
        "training": (images, rebuilt),
    }[cost]
    before = [one.clone() for one in arguments if isinstance(one, Tensor)]
    try:
        first, second = own.value(*arguments), own.value(*arguments)
    except CandidateFailed as failure:
        raise AssertionError(str(failure)) from None
    assert cost == "device" or first == second, f"{name} returned {first}, then {second}"
    after = [one for one in arguments if isinstance(one, Tensor)]
    assert all(map(torch.equal, before, after)), f"{name} has changed its arguments"


def check_loss(part: Part, image_size: int = 32, channels: int = 3) -> None:
    """Check a loss: signature, a scalar, finite values and gradients, lower for better images.

    Args:
        part: The loss.
        image_size: Side of the random images in pixels.
        channels: Their channels: 3 or 1.

    Raises:
        UserError, AssertionError: it does not meet the contract.
    """
    name = _name(part)
    loss = find_loss(name)
    assert loss is not None, f"{name} is not a loss of your own"
    images = _images(image_size, channels)
    latent = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(1))
    values = []
    for share in (0.5, 0.05):
        batch = (1 - share) * images + share * images.flip(0)
        given = [one.clone().requires_grad_() for one in (batch, latent, -latent)]
        try:
            found = loss(given[0], images, given[1], given[2])
        except CandidateFailed as failure:
            raise AssertionError(str(failure)) from None
        found.backward()  # type: ignore[no-untyped-call]
        values.append(float(found.detach()))
        assert np.isfinite(values[-1]), f"{name} returned {values[-1]}"
        for argument, one in zip((ARGUMENTS[0], *ARGUMENTS[2:]), given, strict=True):
            finite = one.grad is None or bool(one.grad.isfinite().all())
            assert finite, f"{name}: the gradient with respect to {argument} is not finite"
        assert given[0].grad is not None, f"{name} does not depend on {ARGUMENTS[0]}"
    assert values[1] < values[0], f"{name} is not lower for a better reconstruction"


def check_block(part: Part, image_size: int = 32, channels: int = 3) -> None:
    """Check a block in encoder and decoder, with one and two layers and each change of size.

    Its output has `stage.width` channels and the size of its input, all its parameters get finite
    gradients, equal input gives equal output in evaluation mode, and its state is stored whole.

    Args:
        part: The block.
        image_size: Side of the random images in pixels.
        channels: Their channels: 3 or 1.

    Raises:
        UserError, AssertionError: it does not meet the contract.
    """
    name = _name(part)
    images = _images(image_size, channels)
    for number, (down, up) in enumerate(zip(DOWNSAMPLING, UPSAMPLING, strict=False), start=1):
        stage = {"block": name, "layers": min(number, 2), "growth_rate": 2}
        described = {
            "image_size": image_size,
            "image_channels": channels,
            "latent_size": 4,
            "encoder": {"stages": [{**stage, "width": w, "downsampling": down} for w in (4, 6)]},
            "decoder": {
                "seed_width": 6,
                "stages": [{**stage, "width": w, "upsampling": up} for w in (6, 4)],
            },
        }
        architecture = Architecture.from_dict(described)
        try:
            static_costs(architecture)
            _check_network(name, build_vae(architecture, seed=0), images)
        except CandidateFailed as failure:
            raise AssertionError(str(failure)) from None


def _check_network(name: str, model: VAE, images: Tensor) -> None:
    eps = torch.zeros(len(images), model.architecture.latent_size)
    rebuilt, mean, log_variance = model.train()(images, eps)
    (rebuilt.square().mean() + mean.square().mean() + log_variance.square().mean()).backward()
    for key, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, f"{name}: {key} does not take part in the output"
        assert bool(gradient.isfinite().all()), f"{name}: the gradient of {key} is not finite"
    with torch.inference_mode():
        first, second = (model.eval()(images, eps)[0] for _ in range(2))
    assert torch.equal(first, second), f"{name} returned another output for equal input"
    lost = {key for key, _ in model.named_buffers()} - model.state_dict().keys()
    assert not lost, f"{name}: the buffer {min(lost)} is not stored with the weights"


def check_dataset(part: Part, image_size: int = 32, channels: int = 3) -> ImageDataset:
    """Check a data set: at least ten images, the same at each call; return it.

    The images are written to the cache, as in a study.

    Args:
        part: The data set.
        image_size: Side in pixels to which the images are resized.
        channels: 3 or 1.

    Raises:
        UserError, AssertionError: it does not meet the contract.
    """
    name = _name(part)
    config = DataConfig(kind=name)
    first, second = (load_dataset(config, image_size, channels=channels) for _ in range(2))
    assert first.fingerprint == second.fingerprint, f"{name} returned other images the second time"
    assert len(first.train) >= 2, f"{name} has too few images for training: {len(first.train)}"
    return first


def check_recipe(part: Part, image_size: int = 32, channels: int = 3) -> None:
    """Check a recipe: steps lower a loss, and a training that is resumed is bitwise the same.

    Args:
        part: The recipe.
        image_size: Side of the random images in pixels.
        channels: Their channels: 3 or 1.

    Raises:
        UserError, AssertionError: it does not meet the contract.
    """
    name = _name(part)
    recipe = find_recipe(name)
    original, images = ORIGINAL.resized(image_size, channels), _images(image_size, channels)

    def begun() -> tuple[VAE, Any]:
        model = build_vae(original, seed=0).train()
        return model, recipe.optimiser(model, recipe.learning_rate)

    model, optimiser = begun()
    losses = [_step(model, optimiser, images) for _ in range(3)]
    stored = {key: value.clone() for key, value in model.state_dict().items()}
    tensors, numbers = optimiser.state()
    resumed, again = begun()
    resumed.load_state_dict(stored)
    again.restore({key: value.clone() for key, value in tensors.items()}, numbers)
    expected, found = _step(model, optimiser, images), _step(resumed, again, images)
    losses.append(expected)
    assert np.isfinite(losses).all(), f"{name} diverges: losses of {losses}"
    assert losses[-1] < losses[0], f"{name} does not lower the loss: {losses}"
    same = all(map(torch.equal, model.state_dict().values(), resumed.state_dict().values()))
    assert same, f"{name}: the weights of a resumed training differ"
    assert expected == found, f"{name}: the loss of a resumed training differs"


def _step(model: VAE, optimiser: Any, images: Tensor) -> float:
    optimiser.begin()
    eps = torch.zeros(COUNT, model.architecture.latent_size)
    loss = (model(images, eps)[0] - images).square().mean()
    loss.backward()
    optimiser.step()
    optimiser.end()
    return float(loss.detach())


def _name(part: Part) -> str:
    name = import_string_of(part)
    if not source_digest(name):
        raise UserError(f"{name}: has no file with its source, which a study records")
    return name


def _images(size: int, channels: int) -> Tensor:
    shape = COUNT, channels, size, size
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
