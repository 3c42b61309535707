"""A parsed search space, and the check that every assignment builds an architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from search_spaces.axes import Axis, Rule, Scalar, Value
from search_spaces.enumeration import Enumeration
from search_spaces.paths import PARTS, sources, stage_value, value_fault
from search_spaces.sizes import sides, size_in_words

REQUIRED = ("image_size", "encoder.depth", "decoder.depth", "decoder.seed_width")
"""Paths that every architecture needs."""


@dataclass(frozen=True)
class Definition:
    """A parsed search space. `*` is replaced by the stages, and conditions on depth are added."""

    name: str
    description: str
    fixed: dict[str, Value]
    axes: dict[str, Axis]
    forbid: tuple[Rule, ...]


def is_int(value: object) -> TypeGuard[int]:
    """Return whether a value is an integer; booleans, which Python also counts, are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: Scalar) -> str:
    """Return a choice as YAML writes it."""
    return "null" if value is None else str(value)


_Wrong = Callable[[Mapping[str, Value]], str | None]
"""Path -> value of an assignment; returns why no architecture has these values, or None."""


def incomplete(definition: Definition) -> Iterator[str]:
    """Yield a fault for each path where an assignment of `definition` builds no architecture."""
    missing = [
        fault for path in REQUIRED for fault in _check(definition, path, [path], _lacks(path))
    ]
    if missing:
        yield from missing
        return
    head = ["encoder.head", "encoder.head_width"]
    yield from _check(definition, "encoder.head_width", head, _lacks_head_width)
    for part in PARTS:
        depth = f"{part}.depth"
        yield from _check(definition, depth, ["image_size", depth], _too_deep(depth))
        for index in range(_deepest(definition, depth)):
            yield from _stage_faults(definition, part, index)
    if not Enumeration(definition.axes, definition.forbid).size:
        yield "forbid: the rules refuse every combination"


def _check(
    definition: Definition, path: str, involved: Sequence[str], wrong: _Wrong
) -> Iterator[str]:
    """Yield the first fault among all combinations of `involved` axes and their parents."""
    names: dict[str, None] = {}
    for name in reversed(definition.axes):
        if name in involved or any(name in definition.axes[child].when for child in names):
            names[name] = None
    axes = {name: axis for name, axis in definition.axes.items() if name in names}
    rules = [rule for rule in definition.forbid if all(name in names for name in rule)]
    for assignment in Enumeration(axes, rules):
        if reason := wrong({**definition.fixed, **assignment}):
            where = ", ".join(f"{name} = {shown(value)}" for name, value in assignment.items())
            yield f"{path}: {reason}" + (f" where {where}" if where else "")
            return


def _stage_faults(definition: Definition, part: str, index: int) -> Iterator[str]:
    def width(values: Mapping[str, Value]) -> str | None:
        if not _reaches(values, part, index):
            return None
        found = stage_value(values, part, index, "width")
        return f"missing in stage {index}" if found is None else value_fault(f"{part}.width", found)

    def growth(values: Mapping[str, Value]) -> str | None:
        dense = stage_value(values, part, index, "block") == "dense"
        lacking = stage_value(values, part, index, "growth_rate") is None
        return "missing" if _reaches(values, part, index) and dense and lacking else None

    yield from _check(definition, f"{part}.width", sources(part, index, "width"), width)
    involved = [*sources(part, index, "growth_rate"), *sources(part, index, "block")]
    yield from _check(definition, f"{part}.growth_rate", involved, growth)


def _reaches(values: Mapping[str, Value], part: str, index: int) -> bool:
    depth = values[f"{part}.depth"]
    return isinstance(depth, int) and depth > index


def _deepest(definition: Definition, path: str) -> int:
    axis = definition.axes.get(path)
    values = axis.choices if axis else (definition.fixed[path],)
    return max(value for value in values if is_int(value))


def _lacks(path: str) -> _Wrong:
    return lambda values: "missing" if values.get(path) is None else None


def _lacks_head_width(values: Mapping[str, Value]) -> str | None:
    squeezed = values.get("encoder.head") == "squeeze"
    return "missing" if squeezed and values.get("encoder.head_width") is None else None


def _too_deep(path: str) -> _Wrong:
    def wrong(values: Mapping[str, Value]) -> str | None:
        depth, size = values[path], values["image_size"]
        if not (is_int(depth) and (is_int(size) or isinstance(size, tuple))):
            return None
        shortest = min(sides(size))
        if 2**depth <= shortest:
            return None
        return f"at most {shortest.bit_length() - 1} stages fit {size_in_words(size)} pixels"

    return wrong
