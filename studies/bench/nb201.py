"""NAS-Bench-201 as a space of six categorical axes and a table of three objectives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from search_spaces import moves
from search_spaces.axes import Assignment, Axis, Lattice, Rule, Scalar
from search_spaces.errors import UserError
from search_spaces.parameters import Parameter
from studies.bench.tables import Row, Table

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Array = npt.NDArray[np.float64]

DATA = Path(__file__).parent / "data" / "nb201_hw.parquet"

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""In the order of the data's codes 0 to 4."""

EDGES = ("op_0_1", "op_0_2", "op_1_2", "op_0_3", "op_1_3", "op_2_3")

PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The ways from input to output, by the places of their edges."""


@dataclass(frozen=True)
class Cell:
    """A cell: one operation for each edge from node i to node j."""

    operations: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """The operations' codes, one digit an edge: different for every cell."""
        return "".join(str(OPERATIONS.index(operation)) for operation in self.operations)


def features(assignments: Sequence[Mapping[str, Scalar]]) -> Array:
    """Describe cells by what reaches the output: (assignments, features).

    An edge on no path from input to output whose operations all pass something on computes nothing
    that matters. So: the operation of each edge that does, how often each occurs, how many paths
    there are, and the most and fewest convolutions on one. Paths as features of this space: White
    et al. 2021 (BANANAS).
    """
    return np.array([_flow([str(one[edge]) for edge in EDGES]) for one in assignments])


def _flow(operations: Sequence[str]) -> list[float]:
    paths = [path for path in PATHS if all(operations[edge] != "none" for edge in path)]
    used = {edge for path in paths for edge in path}
    found = [
        [float(edge in used and operation == kind) for edge, operation in enumerate(operations)]
        for kind in OPERATIONS[1:]
    ]
    convolutions = [sum(operations[edge].startswith("nor") for edge in path) for path in paths]
    large = [sum(operations[edge] == "nor_conv_3x3" for edge in path) for path in paths]
    counts = [sum(of_kind) for of_kind in found]
    ends = [max(convolutions, default=-1), min(convolutions, default=-1), max(large, default=-1)]
    return [*chain.from_iterable(found), *counts, len(paths), *ends]


class CellSpace:
    """The 15,625 cells, with the methods of a `SearchSpace` that samplers use."""

    name = "nb201"
    fixed: Mapping[str, Scalar] = {}
    forbid: tuple[Rule, ...] = ()

    def __init__(self) -> None:
        self.axes = {edge: Axis(OPERATIONS) for edge in EDGES}
        self._lattice = Lattice(self.axes, self.forbid)
        self._parameters = {edge: Parameter.of(edge, OPERATIONS) for edge in EDGES}

    @property
    def size(self) -> int:
        """Number of cells."""
        return self._lattice.size

    def problem(self, assignment: Mapping[str, Scalar]) -> str | None:
        """Say in one line why `assignment` is not valid; None if it is."""
        return self._lattice.problem(assignment)

    def architecture(self, assignment: Mapping[str, Scalar]) -> Cell:
        """Return the cell; `UserError` if the assignment is not valid."""
        if reason := self.problem(assignment):
            raise UserError(f"{self.name}: {reason}")
        return Cell(tuple(str(assignment[edge]) for edge in EDGES))

    def assignment(self, cell: Cell) -> Assignment:
        """Return the choices that make a cell."""
        return dict(zip(EDGES, cell.operations, strict=True))

    def enumerate(self) -> Iterator[Assignment]:
        """Yield every assignment."""
        return iter(self._lattice)

    def sample(self, rng: np.random.Generator) -> Assignment:
        """Draw one assignment, each with the same probability."""
        return self._lattice.sample(rng)

    def neighbours(self, assignment: Mapping[str, Scalar]) -> Iterator[Assignment]:
        """Yield every assignment that differs on one edge."""
        return moves.neighbours(self._lattice, assignment)

    def mutate(self, assignment: Mapping[str, Scalar], rng: np.random.Generator) -> Assignment:
        """Return an assignment that differs on one edge, at random."""
        return moves.mutate(self._lattice, assignment, rng)

    def suggest(self, trial: Any) -> Assignment:
        """Ask an Optuna trial for every edge."""
        return {edge: parameter.suggest(trial) for edge, parameter in self._parameters.items()}

    def to_optuna(self, assignment: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return the parameters that make `suggest` return `assignment`, or some edges of it."""
        return dict(assignment)

    def from_optuna(self, params: Mapping[str, Any]) -> Assignment:
        """Return the assignment behind a trial's parameters."""
        return {edge: params[edge] for edge in EDGES if edge in params}

    def distributions(
        self, assignment: Mapping[str, Scalar] | None = None
    ) -> dict[str, BaseDistribution]:
        """Return parameter name -> Optuna distribution."""
        return {edge: parameter.distribution() for edge, parameter in self._parameters.items()}


def load_nb201() -> Table:
    """Return error (%), latency on a Raspberry Pi 4 (ms) and parameters of every cell.

    One fidelity: validation accuracy on CIFAR-10 after twelve epochs of training. The 341 cells
    that connect nothing have the worst error of all, so they dominate no volume.
    """
    frame = pd.read_parquet(DATA)
    space, rows = CellSpace(), {}
    for record in frame.to_dict("records"):
        cell = Cell(tuple(OPERATIONS[record[edge]] for edge in EDGES))
        costs = (float(record["lat_raspi4_ms"]), float(record["params_c10"]))
        error = 100.0 - float(record["acc12_cifar10_val"])
        rows[cell.digest] = Row(cell.digest, space.assignment(cell), costs, (error,), (1.0,))
    return Table(
        "nb201", space, ("error", "latency_ms", "params"), rows, timed=False, features=features
    )
