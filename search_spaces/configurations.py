"""Configuration spaces: axes with conditions and forbidden combinations, and no architectures.

What AutoML calls a configuration space (Lindauer et al. 2019, ConfigSpace): its hyperparameters
are *axes* here, its conditions stand in `Axis.when`, its forbidden clauses in `forbid`, and a
configuration is an *assignment*: a plain dict of JSON scalars with exactly the active axes as keys.
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
    """The valid assignments of some axes: counted, enumerated, sampled, mutated, told to Optuna.

    Args:
        name: Begins the messages of errors.
        axes: Name -> axis; a condition names only axes before its own.
        forbid: Combinations that are refused.
    """

    def __init__(self, name: str, axes: Mapping[str, Axis], forbid: Sequence[Rule] = ()) -> None:
        self.name: Final = name
        self.axes: Final = axes
        self.forbid: Final = tuple(forbid)
        self._enumeration: Final = Enumeration(axes, self.forbid)
        self._checks: Final = [
            (name, axis.choices, tuple(axis.when.items())) for name, axis in axes.items()
        ]

    # What is valid

    def problem(self, assignment: Mapping[str, Scalar]) -> str | None:
        """Say in one line why `assignment` is not valid; None if it is."""
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
        """Raise `UserError` naming the axis if `assignment` is not valid."""
        if reason := self.problem(assignment):
            raise UserError(f"{self.name}: {reason}")

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
        """Draw one valid assignment, each with the same probability.

        Branches with more assignments are drawn more often: in `wide` nearly all draws are deep.
        `suggest` with Optuna's RandomSampler is uniform on each axis in turn instead.
        """
        return self._enumeration.nth(_below(rng, self.size))

    def mutate(self, assignment: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
        """Return a valid assignment that differs: one axis, at random, takes another choice.

        Axes that become active by it are drawn at random. Where the rules refuse every such
        change, any other valid assignment is drawn.

        Raises:
            UserError: if `assignment` is not valid, or the only one there is.
        """
        self.require(assignment)
        if self.size == 1:
            raise UserError(f"{self.name}: the space has one assignment, so none to mutate to")
        names = list(assignment)
        for place in rng.permutation(len(names)).tolist():
            name = names[place]
            others = [one for one in self.axes[name].choices if one != assignment[name]]
            for index in rng.permutation(len(others)).tolist():
                changed = self._completed({**assignment, name: others[index]}, rng)
                if not self._forbidden(changed):
                    return changed
        while (drawn := self.sample(rng)) == assignment:
            pass
        return drawn

    def _completed(self, wanted: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
        """Keep of `wanted` what is active, and draw active axes it lacks; may be forbidden."""
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
        """Ask an Optuna trial for the active axes, in declared order.

        Optuna knows nothing of `forbid`: pass the result to `problem` before building it.
        """
        known: Assignment = {}
        for name, axis in self.axes.items():
            if matches(axis.when, known):
                known[name] = self._parameters[name].suggest(trial)
        return known

    def to_optuna(self, assignment: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the parameters that make `suggest` return `assignment` (`enqueue_trial`)."""
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
        return f"{name}: not active here, so it takes no value" if name in assignment else None
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
    """Draw uniformly from [0, bound) for any bound: numpy's own integers end at 2^64."""
    bits = (bound - 1).bit_length()
    count = (bits + 7) // 8
    while (drawn := int.from_bytes(rng.bytes(count)) >> (8 * count - bits)) >= bound:
        pass
    return drawn
