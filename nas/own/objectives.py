"""Objectives of the user's own: functions that return one number for a candidate.

The names of a function's arguments say what it is computed from:

- `(model)`: from the network alone, which is on the meta device and has shapes but no values;
- `(model, images)`: measured with the untrained network on the study's device, while nothing else
  runs on the machine;
- `(images, reconstructions)`: judged after each epoch on all validation images.

Images are float32 in [0, 1], `(n, channels, height, width)`.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import Tensor

from nas.objectives import Cost, Direction, Objective, declare, is_own
from nas.own.imports import PartFailed, imported, require_call, told
from nas.vae import VAE, build_vae
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

Judge = Callable[[Tensor, Tensor], float]
"""Returns a number for images and their reconstructions."""

Function = TypeVar("Function", bound=Callable[..., object])

_COSTS: dict[tuple[str, ...], Cost] = {
    ("model",): "static",
    ("model", "images"): "device",
    ("images", "reconstructions"): "training",
}
"""What a function of these arguments is computed from."""

_FORMS = "(model), (model, images) or (images, reconstructions)"
_ABOUT = "__nas_objective__"
_LONGEST = 100


@dataclass(frozen=True)
class About:
    """What `objective` says about a function: see there."""

    title: str | None = None
    unit: str = ""
    direction: Direction = "minimise"
    compared_by: Literal["factor", "difference"] = "difference"
    ideal: float = 0.0


def objective(
    *,
    title: str | None = None,
    unit: str = "",
    direction: Direction = "minimise",
    compared_by: Literal["factor", "difference"] = "difference",
    ideal: float | None = None,
) -> Callable[[Function], Function]:
    """Describe a function as an objective; the function itself is not changed.

    Args:
        title: Its title for people; by default made from the function's name.
        unit: Its unit; "" without one.
        direction: `minimise` or `maximise`.
        compared_by: `difference`, or `factor` if values are always positive and their quotient
            says how much better one is.
        ideal: A bound of the values on the better side, from which the hypervolume counts: by
            default 0 of what is minimised. What is maximised needs one.

    Raises:
        UserError: an argument has another value, or `ideal` is missing.
    """
    for name, value, allowed in (
        ("direction", direction, ("minimise", "maximise")),
        ("compared_by", compared_by, ("factor", "difference")),
    ):
        if value not in allowed:
            raise UserError(f"objective: {name} {value!r} is not one of {', '.join(allowed)}")
    if direction == "maximise" and ideal is None:
        raise UserError("objective: what is maximised needs ideal, a bound of its values above")
    if ideal is not None and not math.isfinite(ideal):
        raise UserError(f"objective: ideal {ideal} is not finite")
    about = About(title, unit, direction, compared_by, ideal or 0.0)

    def described(function: Function) -> Function:
        setattr(function, _ABOUT, about)
        return function

    return described


@dataclass(frozen=True)
class OwnObjective:
    """An objective of the user's own.

    Attributes:
        definition: Its name, title, unit and direction.
        function: Computes its values.
    """

    definition: Objective
    function: Callable[..., object]

    def value(self, *arguments: object) -> float:
        """Return the objective's value.

        Raises:
            PartFailed: the function raised an exception or returned no finite number.
        """
        name = self.definition.name
        try:
            found = self.function(*arguments)
        except Exception as error:  # code of the user
            raise PartFailed(f"{name} raised {told(error)}") from error
        return _number(name, found, positive=self.definition.by_factor)


def _number(name: str, found: object, *, positive: bool) -> float:
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        kind = type(found).__name__
        shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        remedy = "; return float(...) of it" if isinstance(found, Tensor) else ""
        raise PartFailed(f"{name} returned a {kind}{shape}, not a number{remedy}")
    value = float(found)
    if not math.isfinite(value):
        raise PartFailed(f"{name} returned {value}, not a finite number")
    if positive and value <= 0:
        raise PartFailed(f"{name} returned {value:g}, but is compared by factors: not above 0")
    return value


@cache
def find_objective(name: str) -> OwnObjective:
    """Import an objective, and make its definition known to this process.

    Raises:
        UserError: the import string names no such function.
    """
    function = imported(name)
    about: About = getattr(function, _ABOUT, About())
    if not callable(function):
        raise UserError(f"{name}: is a {type(function).__name__}, not a function of {_FORMS}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise UserError(f"{name}: has no signature; write a function of {_FORMS}") from None
    required = tuple(
        one.name
        for one in signature.parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    )
    if required not in _COSTS:
        listed = ", ".join(signature.parameters)
        raise UserError(f"{name}({listed}): name its arguments {_FORMS}")
    last = name.rpartition(":")[2].rpartition(".")[2]
    definition = Objective(
        name,
        about.title or last.replace("_", " ").capitalize(),
        about.unit,
        _COSTS[required],
        ((inspect.getdoc(function) or "").strip() or f"of {name}").splitlines()[0][:_LONGEST],
        about.direction,
        about.compared_by,
        about.ideal,
    )
    declare(definition)
    return OwnObjective(definition, require_call(name, function, required))


def own_objectives(names: Collection[str], cost: Cost) -> dict[str, OwnObjective]:
    """Return those of the named objectives that are the user's own and have this source."""
    known = {name: find_objective(name) for name in sorted(names) if is_own(name)}
    return {name: one for name, one in known.items() if one.definition.cost == cost}


def own_static_costs(architecture: Architecture, names: Collection[str]) -> dict[str, float]:
    """Return the values of the named objectives that depend on the network alone.

    Raises:
        PartFailed: a function raised an exception or returned no finite number.
    """
    known = own_objectives(names, "static")
    if not known:
        return {}
    with torch.device("meta"):
        model: VAE = build_vae(architecture).eval()
        return {name: one.value(model) for name, one in known.items()}


def judges(names: Collection[str]) -> dict[str, Judge]:
    """Return the functions of the named objectives that are judged on reconstructions."""
    return {name: one.value for name, one in own_objectives(names, "training").items()}
