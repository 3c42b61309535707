"""Read the description of a search space and report all of its faults, each with its key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search_spaces.axes import Axis, Rule, Scalar, Value
from search_spaces.definition import REQUIRED, Definition, incomplete, is_int, shown
from search_spaces.errors import UserError, nearest
from search_spaces.import_strings import import_string_of
from search_spaces.paths import MAX_DEPTH, path_fault, stage_of, value_fault
from search_spaces.sizes import size_of

MAX_CHOICES = 256
"""Maximum number of choices of an axis."""

_KEYS = ("name", "description", "fixed", "axes", "forbid")


def parse(data: Any, source: str) -> Definition:
    """Return the definition that `data`, the content of a YAML file, describes.

    Raises:
        UserError: the description has faults; one line per fault, each begins with `source`.
    """
    if not isinstance(data, Mapping):
        raise UserError(f"{source}: expected a mapping with {', '.join(_KEYS)}, got {data!r}")
    reader = _Reader(without_objects(data))
    definition = reader.read()
    # Whether assignments build architectures can be checked only if each part is valid.
    faults = reader.faults or list(incomplete(definition))
    if faults:
        raise UserError("\n".join(f"{source}: {fault}" for fault in dict.fromkeys(faults)))
    return definition


class _Reader:
    """Reads a description and collects all faults."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self.faults: list[str] = []
        self.fixed: dict[str, Value] = {}
        self.declared: dict[str, tuple[tuple[Scalar, ...], Mapping[str, Any]]] = {}
        self.axes: dict[str, Axis] = {}

    def read(self) -> Definition:
        self._check_keys("", self.data, _KEYS)
        name = self.data.get("name")
        if not isinstance(name, str) or not name:
            self._fault(
                "name", f"expected a text, got {name!r}" if "name" in self.data else "missing"
            )
        description = self.data.get("description", "")
        if not isinstance(description, str):
            self._fault("description", f"expected a text, got {description!r}")
        self._read_fixed()
        self._declare_axes()
        for path in self.fixed:
            if stage := stage_of(path.replace("*", "0")):
                self._check_reach(f"fixed.{path}", stage[0], int(stage[1]))
        for path in self.declared:
            self._spell_out(path)
        for path in REQUIRED:
            if path not in self.fixed and path not in self.declared:
                self._fault(path, "missing; give it a value in `fixed` or make it an axis")
        rules = tuple(self._rules())
        return Definition(str(name), str(description), self.fixed, self.axes, rules)

    def _fault(self, key: str, reason: str) -> None:
        self.faults.append(f"{key}: {reason}")

    def _check_keys(self, key: str, data: Mapping[str, Any], known: Sequence[str]) -> None:
        for unknown in [name for name in data if name not in known]:
            where = f"{key}.{unknown}" if key else str(unknown)
            hint = nearest(str(unknown), known)
            self._fault(where, f"unknown key{hint}; known keys: {', '.join(known)}")

    def _mapping(self, key: str, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping):
            return {str(name): value for name, value in data.items()}
        self._fault(key, f"expected a mapping, got {data!r}")
        return {}

    def _read_fixed(self) -> None:
        for path, value in self._mapping("fixed", self.data.get("fixed", {})).items():
            key = f"fixed.{path}"
            if "*" in path:
                general = path.replace(".stages.*", "")
                self._fault(key, f"to set all stages, write {general!r}")
            elif fault := path_fault(path) or value_fault(path, value):
                self._fault(key, fault)
            pair = isinstance(value, list | tuple) and len(value) == 2
            self.fixed[path] = size_of(*value) if pair else value

    def _declare_axes(self) -> None:
        for path, given in self._mapping("axes", self.data.get("axes", {})).items():
            key = f"axes.{path}"
            spec = given if isinstance(given, Mapping) else {"choices": given}
            self._check_keys(key, spec, ("choices", "when"))
            fault = path_fault(path)
            if fault:
                self._fault(key, fault)
            if path in self.fixed:
                self._fault(key, "both in `fixed` and an axis; keep one")
            choices = self._choices(key, spec.get("choices"), None if fault else path)
            self.declared[path] = (choices, self._mapping(f"{key}.when", spec.get("when", {})))
        if not self.declared:
            self._fault("axes", "a space needs at least one axis")

    def _choices(self, key: str, given: Any, path: str | None) -> tuple[Scalar, ...]:
        if not isinstance(given, list | tuple) or not given:
            self._fault(key, f"expected a list of at least one choice, got {given!r}")
            return ()
        if len(given) > MAX_CHOICES:
            self._fault(key, f"has {len(given):,} choices; at most {MAX_CHOICES} are possible")
            return ()
        for value in given:
            if isinstance(value, list | tuple):
                self._fault(key, f"{value!r} is a list; a choice is one value")
            elif path and (fault := value_fault(path, value)):
                self._fault(key, fault)
        for value in {repr(value): value for value in given if given.count(value) > 1}.values():
            self._fault(key, f"{value!r} is listed twice")
        return tuple(given)

    def _spell_out(self, path: str) -> None:
        stage = stage_of(path)
        if stage is None or path_fault(path):
            self._add(path, path, None)
            return
        part, index, _ = stage
        indices = range(self._deepest(part)) if index == "*" else [int(index)]
        for number in indices:
            self._add(path, path.replace("*", str(number)), number)

    def _add(self, path: str, name: str, index: int | None) -> None:
        choices, given = self.declared[path]
        key = f"axes.{path}"
        if name in self.axes or (name != path and name in self.fixed):
            self._fault(f"axes.{name}", "given twice, by itself and by `*` for all stages")
        when = {
            parent.replace("*", str(index)): self._allowed(f"{key}.when.{parent}", values)
            for parent, values in given.items()
        }
        for parent, values in zip(given, when.items(), strict=True):
            self._check_parent(f"{key}.when.{parent}", *values)
        if index is not None and (stage := stage_of(name)):
            self._check_reach(key, stage[0], index)
            self._need_depth(key, f"{stage[0]}.depth", index, when)
        self.axes[name] = Axis(choices, when)

    def _allowed(self, key: str, values: Any) -> tuple[Scalar, ...]:
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not listed:
            self._fault(key, "names no value")
        return listed

    def _check_parent(self, key: str, parent: str, values: tuple[Scalar, ...]) -> None:
        if parent not in self.axes:
            self._fault(key, self._why_no_axis(parent))
            return
        for value in values:
            self._check_value(key, parent, value)

    def _check_value(self, key: str, axis: str, value: Scalar) -> None:
        choices = self.axes[axis].choices
        if choices and value not in choices:  # a missing list of choices is reported elsewhere
            listed = ", ".join(map(shown, choices))
            hint = nearest(str(value), [str(choice) for choice in choices])
            self._fault(key, f"{value!r} is not a choice of {axis} ({listed}){hint}")

    def _why_no_axis(self, name: str) -> str:
        if name in self.fixed:
            return "is fixed; only an axis can be named here"
        if name in self.declared:
            return "is declared later; a condition names axes declared before its own"
        return (
            f"no such axis{nearest(name, [path for path in self.declared if not path_fault(path)])}"
        )

    def _need_depth(
        self, key: str, depth: str, index: int, when: dict[str, tuple[Scalar, ...]]
    ) -> None:
        """Add the condition that stage `index` exists to the rule `when` of its axis."""
        if depth not in self.axes:
            if depth in self.declared:
                self._fault(key, f"declare {depth} before the axes of its stages")
            return
        depths = self.axes[depth].choices
        deep = tuple(value for value in depths if is_int(value) and value > index)
        if len(deep) < len(depths):
            when[depth] = tuple(value for value in when.get(depth, deep) if value in deep)

    def _deepest(self, part: str) -> int:
        path = f"{part}.depth"
        values = self.declared[path][0] if path in self.declared else (self.fixed.get(path),)
        # A value out of range is reported elsewhere.
        return max((value for value in values if is_int(value) and value <= MAX_DEPTH), default=0)

    def _check_reach(self, key: str, part: str, index: int) -> None:
        deepest = self._deepest(part)
        if 0 < deepest <= index:
            self._fault(key, f"there is no stage {index}: {part}.depth is at most {deepest}")

    def _rules(self) -> Iterator[Rule]:
        given = self.data.get("forbid", [])
        if not isinstance(given, list | tuple):
            self._fault("forbid", f"expected a list of rules, got {given!r}")
            return
        for number, rule in enumerate(given):
            key = f"forbid.{number}"
            named = self._mapping(key, rule)
            if isinstance(rule, Mapping) and not rule:
                self._fault(key, "names no axis")
            yield from self._rule(key, named)

    def _rule(self, key: str, named: Mapping[str, Any]) -> Iterator[Rule]:
        starred = [stage_of(axis) for axis in named if "*" in axis]
        depths = [self._deepest(stage[0]) for stage in starred if stage]
        for index in range(min(depths)) if depths else [0]:
            rule = {}
            for axis, values in named.items():
                where, name = f"{key}.{axis}", axis.replace("*", str(index))
                rule[name] = self._allowed(where, values)
                self._check_parent(where, name, rule[name])
            if rule:
                yield rule


def without_objects(data: Any) -> Any:
    """Return data with the import string of each class or function in its place."""
    if isinstance(data, Mapping):
        return {key: without_objects(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(without_objects(value) for value in data)
    return import_string_of(data) if callable(data) else data
