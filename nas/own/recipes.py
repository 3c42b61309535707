"""Recipes of the user's own: functions that return the optimiser of a model.

A recipe is a function `(model, learning_rate)` that returns a `torch.optim.Optimizer`, or an object
of the type `nas.recipes.Recipe`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from nas.own.imports import imported, require_call, told
from nas.recipes import RECIPES, Optimiser, Recipe
from nas.vae import VAE
from search_spaces.errors import UserError, nearest

ARGUMENTS = ("model", "learning_rate")

_NAME = "own"


def find_recipe(name: str) -> Recipe:
    """Return a recipe by its name or import string.

    Raises:
        UserError: there is no such recipe.
    """
    if name in RECIPES:
        return RECIPES[name]
    if ":" not in name:
        raise UserError(
            f"{name!r} is not a recipe; use one of {', '.join(RECIPES)}{nearest(name, RECIPES)}, "
            "or an import string such as mypkg.recipes:mine"
        )
    return _own(name)


@cache
def _own(name: str) -> Recipe:
    found = imported(name)
    if isinstance(found, Recipe):
        return found
    function = require_call(name, found, ARGUMENTS)
    return Recipe(
        learning_rate=_default_rate(function),
        recalibrates=False,
        optimiser=lambda model, rate: TorchOptimiser(_made(name, function, model, rate)),
        explanation=((inspect.getdoc(function) or "").strip() or name).splitlines()[0],
    )


def _default_rate(function: Callable[..., Any]) -> float:
    """Return the default of the function's learning rate, or 1e-3."""
    parameter = inspect.signature(function).parameters.get("learning_rate")
    given = parameter.default if parameter else None
    return float(given) if isinstance(given, int | float) else 1e-3


def _made(
    name: str, function: Callable[..., Any], model: VAE, rate: float
) -> torch.optim.Optimizer:
    try:
        found = function(model, rate)
    except Exception as error:  # code of the user
        raise UserError(f"{name} raised {told(error)}") from None
    if not isinstance(found, torch.optim.Optimizer):
        raise UserError(f"{name} returned a {type(found).__name__}, not a torch.optim.Optimizer")
    return found


class TorchOptimiser(Optimiser):
    """Any optimiser of torch: the evaluated weights are the trained ones."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser

    def begin(self) -> None:
        """Do nothing: the evaluated weights are the trained ones."""

    def end(self) -> None:
        """Do nothing."""

    def step(self) -> None:
        """Take one step, then remove the gradients."""
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def state(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Return the tensors of the optimiser's state, and its numbers and groups."""
        stored = self._optimiser.state_dict()
        tensors, numbers = dict[str, Tensor](), list[dict[str, Any]]()
        for index, state in stored["state"].items():
            kept = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
            for key in state.keys() - kept.keys():
                tensors[f"{_NAME}.{index}.{key}"] = state[key]
            numbers.append({"parameter": index, "numbers": kept})
        groups = [{"group": group} for group in stored["param_groups"]]
        plain: list[dict[str, Any]] = json.loads(json.dumps([*numbers, *groups]))
        return tensors, plain

    def restore(self, tensors: Mapping[str, Tensor], numbers: list[dict[str, Any]]) -> None:
        """Continue from a state."""
        state = {one["parameter"]: dict(one["numbers"]) for one in numbers if "parameter" in one}
        parameters = [one for group in self._optimiser.param_groups for one in group["params"]]
        for name, value in tensors.items():
            prefix, _, rest = name.partition(".")
            if prefix == _NAME:
                index, _, key = rest.partition(".")
                state[int(index)][key] = _laid_out(value, parameters[int(index)])
        groups = [one["group"] for one in numbers if "group" in one]
        self._optimiser.load_state_dict({"state": state, "param_groups": groups})


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a stored value in the memory layout of its parameter, as fused steps need it."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(value)
