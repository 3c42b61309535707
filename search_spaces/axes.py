"""Axes: what can be chosen, and the conditions between choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
