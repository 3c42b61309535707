"""The axes of a search space, and rules about their choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = int | float | str | bool | None
"""One choice of an axis: any JSON scalar."""

Value = Scalar | tuple[int, int]
"""A fixed value: a scalar, or height and width of the images."""

Assignment = dict[str, Scalar]
"""Axis name -> choice, for the active axes only."""

Rule = Mapping[str, tuple[Scalar, ...]]
"""Axis name -> values. It matches if every named axis is active and has one of its values."""


def matches(rule: Rule, known: Mapping[str, Scalar]) -> bool:
    """Return whether `known` has, for every axis of `rule`, one of the values named there."""
    for name, values in rule.items():  # a loop is faster; screening calls it millions of times
        if name not in known or known[name] not in values:
            return False
    return True


@dataclass(frozen=True)
class Axis:
    """One choice that a space leaves open.

    Attributes:
        choices: The values that may be chosen.
        when: The condition: the axis is active where this rule matches.
    """

    choices: tuple[Scalar, ...]
    when: Rule = field(default_factory=dict)
