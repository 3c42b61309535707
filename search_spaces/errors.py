"""The error for mistakes that the user can correct."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from search_spaces.visible import visible

if TYPE_CHECKING:  # importing pydantic would slow down `nas --help`
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails


_Fault = TypeVar("_Fault")

MAX_LINES = 10
"""Maximum number of faults that one message lists."""
MAX_LENGTH = 500
"""Maximum number of characters of a line of a message."""
_MAX_WORD = 200
_MAX_VALUE = 80


class UserError(ValueError):
    """Invalid input. The message has one line per fault: where, which value, what is allowed.

    The command line prints it without a traceback and exits with code 2.
    """


def quoted(value: object) -> str:
    """Return a value as Python writes it, shortened to about 80 characters."""
    return _shortened(repr(value), _MAX_VALUE)


def condensed(message: str) -> str:
    """Return a message as a terminal can show it.

    It has at most `MAX_LINES` lines, of at most `MAX_LENGTH` characters each. Long words and lines
    lose their middle, and control characters are written as Python writes them.
    """
    first, rest = split_faults(message.split("\n"))
    return "\n".join([*map(_condensed_line, first), *rest])


def split_faults(faults: Sequence[_Fault]) -> tuple[Sequence[_Fault], list[str]]:
    """Return the faults that a message lists, and the line that counts the others, if any."""
    more = len(faults) - MAX_LINES
    return faults[:MAX_LINES], [f"and {more} more"] if more > 0 else []


def _condensed_line(line: str) -> str:
    words = re.sub(rf"\S{{{_MAX_WORD + 1},}}", lambda w: _shortened(w[0], _MAX_WORD), visible(line))
    return _shortened(words, MAX_LENGTH)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}[...]{text[head + 5 - most :]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest valid name, or an empty string."""
    match = difflib.get_close_matches(name[:_MAX_VALUE], list(valid), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def refusal(
    error: ValidationError,
    source: str,
    model: type[BaseModel],
    options: Mapping[str, str] | None = None,
) -> UserError:
    """Return pydantic's errors on `model` as one line per fault, with the nearest valid names.

    Args:
        error: The errors.
        source: The origin of the values, with which each line begins.
        model: The model.
        options: The origin of the values of some keys, such as an option.
    """
    first, rest = split_faults(error.errors())
    lines = [f"{_origin(fault, source, options or {})}: {_line(fault, model)}" for fault in first]
    return UserError("\n".join([*lines, *(f"{source}: {line}" for line in rest)]))


def _origin(fault: ErrorDetails, source: str, options: Mapping[str, str]) -> str:
    key = ".".join(map(str, fault["loc"]))
    named = [option for name, option in options.items() if f"{key}.".startswith(f"{name}.")]
    return named[0] if named else source


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
        return (
            f"{key}: {quoted(value)} is not one of {', '.join(names)}{nearest(str(value), names)}"
        )
    if isinstance(value, Mapping | list | tuple):
        return f"{key}: {reason}" if key else reason
    return f"{key}: {reason}, got {quoted(value)}" if key else f"{reason}, got {quoted(value)}"


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
