"""The exact set of valid assignments, counted without listing them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from search_spaces.axes import Assignment, Axis, Rule, Scalar, matches

_Partial = tuple[int, tuple[tuple[str, Scalar], ...]]
"""A position, and the values of the axes that are live there."""


class Enumeration:
    """The valid assignments of `axes`: counted exactly and numbered from 0, never listed in memory.

    Counting is dynamic programming over the axes: the number of completions of a partial assignment
    depends only on the *live* axes, those that a later condition or rule names. It is stored for
    every combination of their values, so spaces of 10^50 assignments are counted in milliseconds.

    Args:
        axes: Name -> axis, in order; a condition names only earlier axes.
        forbid: Rules; an assignment that matches one of them is not valid.
    """

    def __init__(self, axes: Mapping[str, Axis], forbid: Sequence[Rule]) -> None:
        self._axes = axes
        self._order = _dependent_together(axes, forbid)
        place = {name: position for position, name in enumerate(self._order)}
        # A rule is checked as soon as the last axis that it names has its value.
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
        self._counts: dict[_Partial, int] = {}
        self._choices: dict[_Partial, tuple[list[Scalar], list[int]]] = {}

    @property
    def size(self) -> int:
        """Exact number of valid assignments."""
        return self._count(0, {})

    def __iter__(self) -> Iterator[Assignment]:
        return (self.nth(index) for index in range(self.size))

    def nth(self, index: int) -> Assignment:
        """Return valid assignment number `index`; its keys have the order of the axes.

        Raises:
            IndexError: `index` is not in [0, size).
        """
        if not 0 <= index < self.size:
            raise IndexError(f"assignment {index} of {self.size}")
        known: Assignment = {}
        for position, name in enumerate(self._order):
            choices, before = self._branches(position, known)
            place = bisect_right(before, index) - 1
            index -= before[place]
            if choices:
                known[name] = choices[place]
        return {name: known[name] for name in self._axes if name in known}

    def _branches(self, position: int, known: Assignment) -> tuple[list[Scalar], list[int]]:
        """Return the allowed choices at `position`, and the completions before each of them.

        There are no choices where the axis is not active.
        """
        live = tuple([(name, known[name]) for name in self._live[position] if name in known])
        key = (position, live)
        if key not in self._choices:
            extended, name = dict(live), self._order[position]
            choices, before = [], [0]
            for _ in self._extend(position, extended):
                if name in extended:
                    choices.append(extended[name])
                before.append(before[-1] + self._count(position + 1, extended))
            self._choices[key] = choices, before[:-1]
        return self._choices[key]

    def _extend(self, position: int, known: Assignment) -> Iterator[None]:
        """Set the axis at `position` in `known`, if active, to each allowed choice in turn."""
        name = self._order[position]
        axis, closing = self._axes[name], self._closing[name]
        if not matches(axis.when, known):
            yield
            return
        for choice in axis.choices:
            known[name] = choice
            if not closing or not any(matches(rule, known) for rule in closing):
                yield

    def _count(self, position: int, known: Assignment) -> int:
        """Return the number of completions of `known`, which has the axes before `position`."""
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


def _dependent_together(axes: Mapping[str, Axis], forbid: Sequence[Rule]) -> list[str]:
    """Return an order in which dependent axes are close, so that few are live at a time."""
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
