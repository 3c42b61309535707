"""Configuration spaces: axes with conditions and forbidden combinations, without architectures.

A configuration space in the sense of AutoML (ConfigSpace, Lindauer et al. 2019). Its
hyperparameters are called *axes* here, its conditions are in `Axis.when`, its forbidden clauses in
`forbid`. A configuration is called an *assignment*: a plain dict of JSON scalars whose keys are
exactly the active axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from search_spaces.axes import Assignment, Axis, Rule, Scalar, matches
from search_spaces.enumeration import Enumeration
from search_spaces.errors import UserError, nearest
from search_spaces.parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution


class ConfigurationSpace:
    """The valid assignments of some axes: count, enumerate, sample, mutate, convert for Optuna.

    Args:
        name: Name of the space, with which error messages begin.
        axes: Name -> axis, in order; a condition names only earlier axes.
        forbid: Rules; an assignment that matches one of them is not valid.
    """

    def __init__(self, name: str, axes: Mapping[str, Axis], forbid: Sequence[Rule] = ()) -> None:
        self.name: Final = name
        self.axes: Final = axes
        self.forbid: Final = tuple(forbid)
        self._enumeration: Final = Enumeration(axes, self.forbid)
        by_condition: dict[tuple[tuple[str, tuple[Scalar, ...]], ...], list[Any]] = {}
        for axis_name, axis in axes.items():
            same = by_condition.setdefault(tuple(axis.when.items()), [])
            same.append((axis_name, axis.choices))
        self._checks: Final = list(by_condition.items())
        self._conditional: Final = {parent for axis in axes.values() for parent in axis.when}

    # Validity

    def problem(self, assignment: Mapping[str, Scalar]) -> str | None:
        """Return in one line why `assignment` is not valid; None if it is valid."""
        if self._chosen(assignment) == len(assignment) and not self._forbidden(assignment):
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

    def require(self, assignment: Mapping[str, Scalar]) -> None:
        """Check that an assignment is valid.

        Raises:
            UserError: it is not valid; the message names the axis.
        """
        if reason := self.problem(assignment):
            raise UserError(f"{self.name}: {reason}")

    def _chosen(self, assignment: Mapping[str, Scalar]) -> int:
        """Count the active axes; return -1 if one of them has none of its choices."""
        count = 0
        for when, axes in self._checks:  # few calls: the inner loop of screening
            for parent, values in when:
                if parent not in assignment or assignment[parent] not in values:
                    break
            else:
                for name, choices in axes:
                    if name not in assignment or assignment[name] not in choices:
                        return -1
                count += len(axes)
        return count

    def _forbidden(self, assignment: Mapping[str, Scalar]) -> bool:
        return any(matches(rule, assignment) for rule in self.forbid)

    # Counting and drawing

    @property
    def size(self) -> int:
        """Exact number of valid assignments."""
        return self._enumeration.size

    def enumerate(self) -> Iterator[Assignment]:
        """Yield every valid assignment, always in the same order."""
        return iter(self._enumeration)

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw one valid assignment; all are equally probable.

        Choices that activate many axes are therefore drawn more often: in `wide` nearly all draws
        are deep. `suggest` with Optuna's RandomSampler draws each axis uniformly instead.
        """
        return self._enumeration.nth(_below(rng, self.size))

    def mutate(self, assignment: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
        """Return a different valid assignment: a random axis takes another choice.

        Axes that become active are drawn at random. If the rules forbid every such change, any
        other valid assignment is drawn.

        Raises:
            UserError: `assignment` is not valid, or the space has no other.
        """
        self.require(assignment)
        if self.size == 1:
            raise UserError(f"{self.name}: the space has one assignment, so it cannot be mutated")
        names = list(assignment)
        for place in rng.permutation(len(names)).tolist():
            name = names[place]
            others = [one for one in self.axes[name].choices if one != assignment[name]]
            for index in rng.permutation(len(others)).tolist():
                changed = {**assignment, name: others[index]}
                if name in self._conditional:  # other axes are active then
                    changed = self._completed(changed, rng)
                if not self._forbidden(changed):
                    return changed
        while (drawn := self.sample(rng)) == assignment:
            pass
        return drawn

    def _completed(self, wanted: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
        """Keep the active axes of `wanted` and draw the missing ones; it may be forbidden."""
        known: Assignment = {}
        for name, axis in self.axes.items():
            if not axis.when or matches(axis.when, known):
                known[name] = wanted[name] if name in wanted else _draw(axis, rng)
        return known

    # Optuna

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        return {name: Parameter.of(name, axis.choices) for name, axis in self.axes.items()}

    def suggest(self, trial: Any) -> Assignment:
        """Return the choices that an Optuna trial suggests for the active axes, in declared order.

        Optuna does not know `forbid`: check the result with `problem` before building it.
        """
        known: Assignment = {}
        for name, axis in self.axes.items():
            if matches(axis.when, known):
                known[name] = self._parameters[name].suggest(trial)
        return known

    def to_optuna(self, assignment: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the Optuna parameters with which `suggest` returns `assignment`."""
        parameters = [(self._parameters[name], value) for name, value in assignment.items()]
        return {parameter.name: parameter.encode(value) for parameter, value in parameters}

    def distributions(
        self, assignment: Mapping[str, Scalar] | None = None
    ) -> dict[str, BaseDistribution]:
        """Return parameter name -> Optuna distribution, of one assignment's axes or of all."""
        chosen = self.axes if assignment is None else assignment
        return {
            parameter.name: parameter.distribution()
            for parameter in (self._parameters[name] for name in chosen)
        }


def _choice_problem(name: str, axis: Axis, assignment: Mapping[str, Scalar]) -> str | None:
    if not matches(axis.when, assignment):
        return f"{name}: not active here, so it must have no value" if name in assignment else None
    if name not in assignment:
        return f"{name}: missing"
    if assignment[name] in axis.choices:
        return None
    names = [str(choice) for choice in axis.choices]
    given = assignment[name]
    return f"{name}: {given!r} is not one of {', '.join(names)}{nearest(str(given), names)}"


def _draw(axis: Axis, rng: np.random.Generator) -> Scalar:
    return axis.choices[int(rng.integers(len(axis.choices)))]


def _below(rng: np.random.Generator, bound: int) -> int:
    """Draw uniformly from [0, bound); numpy's own integers are limited to 2^64."""
    bits = (bound - 1).bit_length()
    count = (bits + 7) // 8
    while (drawn := int.from_bytes(rng.bytes(count)) >> (8 * count - bits)) >= bound:
        pass
    return drawn
