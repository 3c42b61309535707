"""What the adapters of all frameworks share: configurations, random states, imports."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from search_spaces.errors import UserError
from studies.bench.tables import Network, Table


@dataclass(frozen=True)
class Keyed:
    """A proposal with its number in the framework; one network may have several numbers."""

    architecture: Network
    key: str


class Config:
    """A configuration of all axes with the interface of an Optuna trial; inactive axes drop out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return the choice of the axis."""
        return self._config[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        """Return the number of the axis."""
        return int(self._config[name])


class Seeded:
    """Sets the global random states that a framework draws from, and restores them afterwards."""

    def __init__(self, seed: int) -> None:
        numpy = np.random.RandomState(seed).get_state()
        torch_state = torch.Generator().manual_seed(seed).get_state()
        self._states = (numpy, random.Random(seed).getstate(), torch_state)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Run a block with the framework's own states."""
        before = _states()
        _set_states(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _set_states(before)


def _states() -> tuple[Any, Any, torch.Tensor]:
    return np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002


def _set_states(states: tuple[Any, Any, torch.Tensor]) -> None:
    np.random.set_state(states[0])  # noqa: NPY002
    random.setstate(states[1])
    torch.set_rng_state(states[2])


def distributions(table: Table) -> Mapping[str, Any]:
    """Return parameter name -> Optuna distribution of all axes, active or not."""
    return table.space.distributions()


def member(table: Table, config: Mapping[str, Any]) -> Network:
    """Return the member of a configuration of all axes."""
    found: Network = table.space.architecture(table.space.suggest(Config(config)))
    return found


def imported(module: str, package: str) -> Any:
    """Import a module of a framework.

    Raises:
        UserError: The package that has it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{package} cannot be imported ({error}): pip install {package}") from None
