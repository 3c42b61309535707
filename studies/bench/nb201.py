"""NAS-Bench-201 as a space of six categorical axes and a table of three objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from nas.search.interfaces import Array
from nas.search.path_features import PathFeatures
from search_spaces.axes import Assignment, Axis, Scalar
from search_spaces.configurations import ConfigurationSpace
from studies.bench.tables import Table, TableEntry

NB201_FILE = Path(__file__).parent / "data" / "nb201_hw.parquet"

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Operations in the order of their codes 0 to 4 in the data."""

EDGES = ("op_0_1", "op_0_2", "op_1_2", "op_0_3", "op_1_3", "op_2_3")

_STRUCTURE = PathFeatures([(int(one[3]), int(one[5])) for one in EDGES], len(OPERATIONS))


@dataclass(frozen=True)
class Cell:
    """A cell: one operation for each edge from node i to node j."""

    operations: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """The operations' codes, one digit per edge: different for every cell."""
        return "".join(str(OPERATIONS.index(operation)) for operation in self.operations)


def path_features(assignments: Sequence[Mapping[str, Scalar]]) -> Array:
    """Return features of the structure of cells, (assignments, features)."""
    codes = [[OPERATIONS.index(str(one[edge])) for edge in EDGES] for one in assignments]
    return _STRUCTURE(np.array(codes, dtype=np.intp))


class CellSpace(ConfigurationSpace):
    """The 15,625 cells: one axis per edge, without conditions."""

    def __init__(self) -> None:
        super().__init__("nb201", {edge: Axis(OPERATIONS) for edge in EDGES})

    def architecture(self, assignment: Mapping[str, Scalar]) -> Cell:
        """Return the cell; `UserError` if the assignment is not valid."""
        self.require(assignment)
        return Cell(tuple(str(assignment[edge]) for edge in EDGES))

    def assignment(self, cell: Cell) -> Assignment:
        """Return the choices that make a cell."""
        return dict(zip(EDGES, cell.operations, strict=True))


def load_nb201() -> Table:
    """Return error (%), latency on a Raspberry Pi 4 (ms) and parameters of every cell.

    There is one fidelity: validation accuracy on CIFAR-10 after twelve epochs of training. The 341
    cells that connect nothing have the worst error of all, so they dominate no volume.
    """
    frame = pd.read_parquet(NB201_FILE)
    space, entries = CellSpace(), {}
    for record in frame.to_dict("records"):
        cell = Cell(tuple(OPERATIONS[record[edge]] for edge in EDGES))
        costs = (float(record["lat_raspi4_ms"]), float(record["params_c10"]))
        error = 100.0 - float(record["acc12_cifar10_val"])
        entries[cell.digest] = TableEntry(
            cell.digest, space.assignment(cell), costs, (error,), (1.0,)
        )
    return Table(
        "nb201",
        space,
        ("error", "latency_ms", "params"),
        entries,
        timed=False,
        features=path_features,
    )
