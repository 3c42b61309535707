"""The recipes that are compared: those of `nas.recipes`, and others that were not chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.recipes import RECIPES, Adam, Optimiser, Recipe, ScheduleFree, parameter_groups
from nas.vae import VAE

EMA_DECAY = 0.9
"""Decay of the average per step. Trainings of a hundred steps allow no slower one."""


class Variant(NamedTuple):
    """A recipe at a learning rate.

    Attributes:
        recipe: Returns the recipe for a training of so many steps.
        learning_rate: The learning rate.
        precision: As in `TrainingConfig`.
    """

    recipe: Callable[[int], Recipe]
    learning_rate: float
    precision: str = "float32"


class AdamVariant:
    """Adam with smaller steps for the latent's heads, and with options that `nas` does not have.

    Args:
        model: The model.
        learning_rate: The largest learning rate.
        average: Whether an exponential average of the weights is evaluated.
        steps: Number of steps over which the rate falls to 0 along a cosine, after a warm-up; None
            keeps it constant.
    """

    def __init__(
        self, model: VAE, learning_rate: float, *, average: bool = False, steps: int | None = None
    ) -> None:
        self._model = model
        groups = parameter_groups(model, learning_rate)
        self._adam = torch.optim.Adam(groups, learning_rate, fused=True)
        self._schedule = None
        if steps:
            shape = partial(_cosine, steps=steps)
            self._schedule = torch.optim.lr_scheduler.LambdaLR(self._adam, shape)
        self._averaged = [p.detach().clone() for p in model.parameters()] if average else None
        self._trained: list[Tensor] | None = None

    def begin(self) -> None:
        """Give the model the weights of the last step."""
        if self._trained is not None:
            self._put(self._trained)

    def end(self) -> None:
        """Give the model the average."""
        if self._averaged is not None:
            self._trained = [p.detach().clone() for p in self._model.parameters()]
            self._put(self._averaged)

    def step(self) -> None:
        """Take one step, then remove the gradients."""
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        if self._schedule:
            self._schedule.step()
        if self._averaged is not None:
            latest = [p.detach() for p in self._model.parameters()]
            torch._foreach_lerp_(self._averaged, latest, 1 - EMA_DECAY)

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Return nothing: a training of the comparison is not resumed."""
        return {}, []

    def restore(self, tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> None:
        """Raise an error: there is no state."""
        raise RuntimeError("a training of the comparison is not resumed")

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._model.parameters(), weights, strict=True):
                parameter.copy_(value)


def _cosine(step: int, steps: int) -> float:
    warmup = 16
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _recipe(optimiser: Callable[..., Optimiser], *, recalibrates: bool = True) -> Recipe:
    return Recipe(1e-3, recalibrates, optimiser, "a recipe of the comparison")


def _plain(steps: int) -> Recipe:
    return RECIPES["paper"]


def _calibrated(steps: int) -> Recipe:
    return _recipe(Adam)


def _scaled(steps: int) -> Recipe:
    return _recipe(AdamVariant)


def _averaged(steps: int) -> Recipe:
    return _recipe(partial(AdamVariant, average=True))


def _annealed(steps: int) -> Recipe:
    return _recipe(partial(AdamVariant, steps=steps))


def _schedule_free(steps: int) -> Recipe:
    return _recipe(ScheduleFree)


VARIANTS: dict[str, Variant] = {
    "adam 3e-4": Variant(_plain, 3e-4),
    "adam 1e-3": Variant(_plain, 1e-3),
    "adam 3e-3": Variant(_plain, 3e-3),
    "adam, statistics 1e-3": Variant(_calibrated, 1e-3),
    "adam, heads 3e-3": Variant(_scaled, 3e-3),
    "adam, heads, average 3e-3": Variant(_averaged, 3e-3),
    "adam, heads, cosine 3e-3": Variant(_annealed, 3e-3),
    "adam, heads, cosine 1e-2": Variant(_annealed, 1e-2),
    "schedule-free 3e-3": Variant(_schedule_free, 3e-3),
    "schedule-free 1e-2": Variant(_schedule_free, 1e-2),
    "schedule-free 2e-2": Variant(_schedule_free, 2e-2),
    "schedule-free 1e-2, bfloat16": Variant(_schedule_free, 1e-2, "bfloat16"),
}
"""Name -> variant. `adam 1e-3` is what studies used before there were recipes."""

TODAY = "adam 1e-3"
"""The variant that the goals compare with."""


def register(name: str, steps: int) -> tuple[str, Variant]:
    """Make a variant known to `TrainingConfig`; return the name of its recipe."""
    variant = VARIANTS[name]
    key = f"compared: {name}"
    RECIPES[key] = variant.recipe(steps)
    return key, variant
