"""The interfaces between proposers, engines and spaces."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nas.objectives import trained_objectives
from search_spaces.axes import Assignment

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

Costs = Callable[[Sequence[Any]], Array]
"""Architectures -> (architectures, costs); NaN in columns that are not known before evaluation."""

Features = Callable[[Sequence[Assignment]], Array]
"""Assignments -> (assignments, features)."""


@dataclass(frozen=True)
class KnownLimits:
    """The hard limits whose excess is known or predicted before a candidate is evaluated.

    Attributes:
        names: The limits, by the names that violations have.
        predicted: Those whose value is predicted, so that a measurement may differ.
        excess: Architectures -> (architectures, names): the logarithm of value over limit, at most
            0 where an architecture satisfies the limit.
    """

    names: tuple[str, ...]
    predicted: frozenset[str]
    excess: Callable[[Sequence[Any]], Array]


def learned(objectives: Sequence[str]) -> str:
    """Return the objective that a search learns: the first trained one, or else the first."""
    return (*trained_objectives(objectives), objectives[0])[0]


class Space(Protocol):
    """The methods of `search_spaces.space.SearchSpace` that a search uses."""

    @property
    def size(self) -> int:
        """Number of valid assignments."""

    def problem(self, assignment: Mapping[str, Any]) -> str | None:
        """Return why an assignment is not valid; None if it is valid."""

    def architecture(self, assignment: Mapping[str, Any]) -> Any:
        """Return the architecture; two architectures are the same if their `digest` is equal."""

    def enumerate(self) -> Iterator[Assignment]:
        """Yield every valid assignment, always in the same order."""

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw a valid assignment."""

    def mutate(self, assignment: Mapping[str, Any], rng: np.random.Generator) -> Assignment:
        """Return a different valid assignment."""

    def suggest(self, trial: Any) -> Assignment:
        """Return the choices that an Optuna trial suggests; the assignment may be forbidden."""

    def to_optuna(self, assignment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the Optuna parameters of an assignment; it may contain a single axis."""

    def distributions(self, assignment: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return parameter name -> Optuna distribution, of one assignment's axes or of all."""


class Engine(Protocol):
    """Chooses the next candidate and learns from the results."""

    def propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        """Return assignment, architecture and number of repeated proposals.

        The result is None if no unseen candidate was found. A candidate that is returned counts as
        adopted.

        Args:
            seen: Digests of the networks that must not be proposed.
            rng: Determined by the seed and the number of candidates seen.
        """

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Add a candidate that was chosen elsewhere and is being evaluated."""

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Record the result of a candidate; one that was never adopted is ignored."""
