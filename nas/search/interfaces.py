"""What proposers, engines and spaces ask of one another."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nas.objectives import TRAINED_OBJECTIVE
from search_spaces.axes import Assignment

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

Costs = Callable[[Sequence[Any]], Array]
"""Architectures -> (architectures, costs); NaN in columns that cannot be known beforehand."""

Features = Callable[[Sequence[Assignment]], Array]
"""Assignments -> (assignments, features)."""


@dataclass(frozen=True)
class KnownLimits:
    """Hard limits as far as they are known before a candidate is tried.

    Attributes:
        names: Limits, as violations name them.
        predicted: Those of them whose value is predicted, so that a measurement may differ.
        excess: Architectures -> (architectures, names): logarithm of value over limit, at most 0
            where an architecture keeps to the limit.
    """

    names: tuple[str, ...]
    predicted: frozenset[str]
    excess: Callable[[Sequence[Any]], Array]


def learned(objectives: Sequence[str]) -> str:
    """Return the objective that a search has to learn: the loss, or the first if there is none."""
    return TRAINED_OBJECTIVE if TRAINED_OBJECTIVE in objectives else objectives[0]


class Space(Protocol):
    """A set of architectures as `search_spaces.space.SearchSpace` describes one."""

    @property
    def size(self) -> int:
        """Number of valid assignments."""

    def problem(self, assignment: Mapping[str, Any]) -> str | None:
        """Say why an assignment is not valid; None if it is."""

    def architecture(self, assignment: Mapping[str, Any]) -> Any:
        """Build an architecture; its `digest` is what makes it the same as another."""

    def enumerate(self) -> Iterator[Assignment]:
        """Yield every valid assignment, always in the same order."""

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw a valid assignment."""

    def mutate(self, assignment: Mapping[str, Any], rng: np.random.Generator) -> Assignment:
        """Return a valid assignment that differs."""

    def suggest(self, trial: Any) -> Assignment:
        """Ask an Optuna trial for the active axes; the assignment may still be forbidden."""

    def to_optuna(self, assignment: Mapping[str, Any]) -> dict[str, Any]:
        """Return the Optuna parameters of axes, of one alone as well."""

    def distributions(self, assignment: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return parameter name -> Optuna distribution, of one assignment's axes or of all."""


class Engine(Protocol):
    """Chooses what to try next and learns from how it went."""

    def propose(
        self, seen: Container[str], rng: np.random.Generator
    ) -> tuple[Assignment, Any, int] | None:
        """Return assignment, architecture and number of repeated proposals; None if stuck.

        A candidate that is returned counts as adopted. `rng` follows from the seed and the number
        of candidates seen.
        """

    def adopt(self, assignment: Assignment, architecture: Any, rng: np.random.Generator) -> None:
        """Take note of a candidate chosen elsewhere that is being tried."""

    def tell(
        self, digest: str, values: Sequence[float] | None, violations: Mapping[str, float]
    ) -> None:
        """Take note of how a candidate ended; one that was never adopted is ignored."""
