"""The error for mistakes that the user can correct."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing pydantic would slow down `nas --help`
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


class UserError(ValueError):
    """Invalid input. The message has one line per fault: where, which value, what is allowed.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest valid name, or an empty string."""
    match = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def refusal(error: ValidationError, source: str, model: type[BaseModel]) -> UserError:
    """Return pydantic's errors on `model` as one line per fault, with the nearest valid names."""
    return UserError("\n".join(f"{source}: {_line(e, model)}" for e in error.errors()))


def _line(fault: ErrorDetails, model: type[BaseModel]) -> str:
    location, kind, value = fault["loc"], fault["type"], fault["input"]
    key = ".".join(str(part) for part in location)
    if kind == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        listed = f"; known keys: {', '.join(known)}" if known else ""
        return f"{key}: unknown key{nearest(str(location[-1]), known)}{listed}"
    if kind == "missing":
        return f"{key}: missing"
    reason = fault["msg"].removeprefix("Value error, ")
    if kind == "literal_error":
        allowed = fault.get("ctx", {}).get("expected", "")
        names = [name.strip("'") for name in allowed.replace(" or ", ", ").split(", ")]
        return f"{key}: {value!r} is not one of {', '.join(names)}{nearest(str(value), names)}"
    if isinstance(value, Mapping | list | tuple):
        return f"{key}: {reason}" if key else reason
    return f"{key}: {reason}, got {value!r}"


def _fields_at(model: Any, location: Sequence[str | int]) -> list[str]:
    """Return the field names at `location` in nested models; none if they are not known."""
    for part in location:
        models = _models_in(model)
        if isinstance(part, int):
            continue
        following = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if not following:
            continue
        model = following[0]
    return [name for found in _models_in(model)[:1] for name in found.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models_in(inner)]
