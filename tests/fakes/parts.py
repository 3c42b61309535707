"""A package of objectives, losses, data sets and recipes, written to a folder and imported."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

_NUMBERS = itertools.count()

SOURCE = '''
import numpy as np
import torch
from nas import objective


@objective(unit="layers", compared_by="factor")
def depth(model):
    """Number of modules of the network."""
    return sum(1 for _ in model.modules())


def images_seen(model, images):
    return images.shape[0] + model(images)[0].shape[-1] / 1000


@objective(title="Closeness", direction="maximise", ideal=1.0)
def closeness(images, reconstructions):
    """One minus the mean absolute error."""
    return 1 - float((images - reconstructions).abs().mean())


def squared(reconstruction, images, mean, log_variance):
    return (reconstruction - images).square().mean() + 0 * mean.sum()


def squares(path=None):
    return np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)


def sgd(model, learning_rate=0.25):
    """Plain descent."""
    return torch.optim.SGD(model.parameters(), learning_rate, momentum=0.5)


def adamw(model, learning_rate):
    return torch.optim.AdamW(model.parameters(), learning_rate)


# What is wrong in some way.

value = 3


def no_arguments():
    return 1.0


def other_arguments(a, b):
    return 1.0


def nan(model):
    return float("nan")


def tensor(model):
    return torch.ones(3)


def text(model):
    return "3"


def negative(images, reconstructions):
    return -1.0


@objective(compared_by="factor")
def negative_factor(images, reconstructions):
    return -1.0


def broken(images, reconstructions):
    raise ZeroDivisionError("no\\nluck")


def changing(images, reconstructions):
    images += 1
    return 1.0


def noisy(images, reconstructions):
    return float(torch.rand(()))


def number_loss(reconstruction, images, mean, log_variance):
    return 3.0


def vector_loss(reconstruction, images, mean, log_variance):
    return (reconstruction - images).flatten(1).mean(dim=1)


def detached_loss(reconstruction, images, mean, log_variance):
    return (reconstruction - images).square().mean().detach()


def worse_loss(reconstruction, images, mean, log_variance):
    return -(reconstruction - images).square().mean()


def random_images():
    return np.random.default_rng().integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)


def no_images():
    return 3


def broken_images():
    raise OSError("no disk")


def no_optimiser(model, learning_rate):
    return model
'''


class Parts:
    """A package that is on the path of imports for one test, under a name of its own.

    Attributes:
        folder: The folder on the path.
        module: Name of the module.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, source: str = SOURCE) -> None:
        self.folder, self.module = folder, f"parts_of_test_{next(_NUMBERS)}"
        self.path.write_text(source)
        patch.syspath_prepend(folder)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.module}.py"

    def __call__(self, name: str) -> str:
        """Return the import string of a part."""
        return f"{self.module}:{name}"

    def forget(self) -> None:
        """Remove the file, as on a machine that does not have the package."""
        self.path.unlink()
        sys.modules.pop(self.module, None)
