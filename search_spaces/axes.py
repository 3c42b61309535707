"""Axes, the conditions between them, and the exact set of assignments they allow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search_spaces.errors import nearest

if TYPE_CHECKING:
    import numpy as np

Scalar = int | float | str | bool | None
"""One choice of an axis: any JSON scalar."""

Assignment = dict[str, Scalar]
"""Axis name -> choice, for the active axes only."""

Rule = Mapping[str, tuple[Scalar, ...]]
"""Axis name -> values. Matches where every named axis is active and has one of its values."""


def matches(rule: Rule, known: Mapping[str, Scalar]) -> bool:
    """Say whether every axis that `rule` names is in `known` with one of the named values."""
    for name, values in rule.items():  # a loop: screening thousands asks this millions of times
        if name not in known or known[name] not in values:
            return False
    return True


@dataclass(frozen=True)
class Axis:
    """What may be chosen, and the rule that must match for there to be a choice at all."""

    choices: tuple[Scalar, ...]
    when: Rule = field(default_factory=dict)


class Lattice:
    """The valid assignments of `axes`: counted exactly, numbered from 0, never listed in memory.

    `axes` are ordered, conditions naming only earlier ones; an assignment that matches a rule of
    `forbid` is not valid. Counting walks the axes once per combination of the values that later
    axes still depend on, so spaces of 10^50 assignments count in milliseconds.
    """

    def __init__(self, axes: Mapping[str, Axis], forbid: Sequence[Rule]) -> None:
        self.axes = axes
        self.forbid = forbid
        self._checks = [
            (name, axis.choices, tuple(axis.when.items())) for name, axis in axes.items()
        ]
        self._order = _neighbours_first(axes, forbid)
        place = {name: position for position, name in enumerate(self._order)}
        self._closing: dict[str, list[Rule]] = {name: [] for name in axes}
        last_use = dict(place)
        for name, axis in axes.items():
            for parent in axis.when:
                last_use[parent] = max(last_use[parent], place[name])
        for rule in forbid:
            last = max(rule, key=place.__getitem__)
            self._closing[last].append(rule)
            for name in rule:
                last_use[name] = max(last_use[name], place[last])
        self._live = [
            [name for name in self._order[:position] if last_use[name] >= position]
            for position in range(len(axes) + 1)
        ]
        self._counts: dict[tuple[int, tuple[tuple[str, Scalar], ...]], int] = {}

    @property
    def size(self) -> int:
        """Exact number of valid assignments."""
        return self._count(0, {})

    def __iter__(self) -> Iterator[Assignment]:
        return (self.nth(index) for index in range(self.size))

    def nth(self, index: int) -> Assignment:
        """Return valid assignment number `index`, in the order of the axes.

        Raises:
            IndexError: if `index` is not in [0, size).
        """
        if not 0 <= index < self.size:
            raise IndexError(f"assignment {index} of {self.size}")
        known: Assignment = {}
        for position in range(len(self._order)):
            for _ in self._extend(position, known):
                count = self._count(position + 1, known)
                if index < count:
                    break
                index -= count
        return {name: known[name] for name in self.axes if name in known}

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw one valid assignment, each with the same probability."""
        return self.nth(_below(rng, self.size))

    def problem(self, assignment: Mapping[str, Scalar]) -> str | None:
        """Say in one line why `assignment` is not valid; None if it is."""
        if self._chosen(assignment) == len(assignment) and not self.forbidden(assignment):
            return None
        for name in assignment:
            if name not in self.axes:
                return f"{name}: no such axis{nearest(str(name), self.axes)}"
        for name, axis in self.axes.items():
            if reason := _choice_problem(name, axis, assignment):
                return reason
        for rule in self.forbid:
            if matches(rule, assignment):
                return ", ".join(f"{name} = {assignment[name]}" for name in rule) + ": forbidden"
        return None

    def forbidden(self, assignment: Mapping[str, Scalar]) -> bool:
        """Say whether a rule forbids `assignment`, which has what it needs and nothing else."""
        return any(matches(rule, assignment) for rule in self.forbid)

    def completed(
        self, wanted: Mapping[str, Scalar], choose: Callable[[Axis], Scalar]
    ) -> Assignment:
        """Keep of `wanted` what is active, and let `choose` fill active axes it lacks.

        The result can still be forbidden.
        """
        known: Assignment = {}
        for name, axis in self.axes.items():
            if not axis.when or matches(axis.when, known):
                known[name] = wanted[name] if name in wanted else choose(axis)
        return known

    def _chosen(self, assignment: Mapping[str, Scalar]) -> int:
        """Count the active axes that have one of their choices; -1 where one has not."""
        count = 0
        for name, choices, when in self._checks:  # spelled out: screening asks this most of all
            for parent, values in when:
                if parent not in assignment or assignment[parent] not in values:
                    break
            else:
                if name not in assignment or assignment[name] not in choices:
                    return -1
                count += 1
        return count

    def _extend(self, position: int, known: Assignment) -> Iterator[None]:
        """Set the next axis in `known`, if it is active, to each choice that is allowed."""
        name = self._order[position]
        axis, closing = self.axes[name], self._closing[name]
        if not matches(axis.when, known):
            yield
            return
        for choice in axis.choices:
            known[name] = choice
            if not closing or not any(matches(rule, known) for rule in closing):
                yield

    def _count(self, position: int, known: Assignment) -> int:
        if position == len(self._order):
            return 1
        live = tuple([(name, known[name]) for name in self._live[position] if name in known])
        key = (position, live)
        if key not in self._counts:
            extended = dict(live)
            self._counts[key] = sum(
                self._count(position + 1, extended) for _ in self._extend(position, extended)
            )
        return self._counts[key]


def _choice_problem(name: str, axis: Axis, assignment: Mapping[str, Scalar]) -> str | None:
    if not matches(axis.when, assignment):
        return f"{name}: not active here, so it takes no value" if name in assignment else None
    if name not in assignment:
        return f"{name}: missing"
    if assignment[name] in axis.choices:
        return None
    names = [str(choice) for choice in axis.choices]
    given = assignment[name]
    return f"{name}: {given!r} is not one of {', '.join(names)}{nearest(str(given), names)}"


def _below(rng: np.random.Generator, bound: int) -> int:
    """Draw uniformly from [0, bound) for any bound: numpy's own integers end at 2^64."""
    bits = (bound - 1).bit_length()
    count = (bits + 7) // 8
    while (drawn := int.from_bytes(rng.bytes(count)) >> (8 * count - bits)) >= bound:
        pass
    return drawn


def _neighbours_first(axes: Mapping[str, Axis], forbid: Sequence[Rule]) -> list[str]:
    """Order axes so that what depends on one another is close: few values stay live at once."""
    links: dict[str, dict[str, None]] = {name: {} for name in axes}
    for name, axis in axes.items():
        for parent in axis.when:
            links[parent][name] = None
    for rule in forbid:
        for name in rule:
            links[name].update(dict.fromkeys(rule))
    placed: dict[str, None] = {}

    def place(name: str) -> None:
        placed[name] = None
        for other in links[name]:
            if other not in placed and all(parent in placed for parent in axes[other].when):
                place(other)

    for name in axes:
        if name not in placed:
            place(name)
    return list(placed)
