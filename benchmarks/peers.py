"""Other frameworks' multi-objective searches with early stopping, on the tables of `nas bench`.

`python -m benchmarks.peers syne-tune-moasha` writes results beside those of `nas bench search`
with the same `--out`, `--trials` and `--workers`, and writes the comparison of all of them again.

Both frameworks decide themselves what to train and for how long, so an adapter of their interfaces
is both the asker and the stopping rule. They have no inactive axes, and train a network again
when they draw it again. They are not among our requirements: `pip install -e ".[peers]"` installs
Syne Tune; NePS needs pandas below 3 and therefore a separate environment.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from search_spaces.errors import UserError
from studies.bench.contenders import Contender
from studies.bench.runs import PlannedSearch, missing_of, run_contender, stored_results
from studies.bench.simulation import Asker, Stopping
from studies.bench.tables import Network, Table
from studies.bench.write import write_comparison


@dataclass(frozen=True)
class Keyed:
    """A proposal with its number in the framework; one network may have several numbers."""

    architecture: Network
    key: str


class _Config:
    """A configuration of all axes with the interface of an Optuna trial; inactive axes drop out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._config[name]

    def suggest_int(self, name: str, low: int, high: int, *, step: int) -> int:
        return int(self._config[name])


class _Seeded:
    """Sets the global random states that a framework draws from, and restores them afterwards."""

    def __init__(self, seed: int) -> None:
        numpy = np.random.RandomState(seed).get_state()
        torch_state = torch.Generator().manual_seed(seed).get_state()
        self._states = (numpy, random.Random(seed).getstate(), torch_state)

    @contextmanager
    def __call__(self) -> Iterator[None]:
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


class SyneTuneMoAsha:
    """MO-ASHA of Syne Tune (Schmucker et al. 2021): random draws, stopped at rungs 1, 3, 9, ...

    Rungs are sorted by non-dominated sorting of all objectives at that epoch.
    """

    def __init__(self, table: Table, seed: int) -> None:
        moasha = _imported("syne_tune.optimizer.schedulers.multiobjective.moasha", "syne-tune")
        self._config_space = _imported("syne_tune.config_space", "syne-tune")
        self._trial = _imported("syne_tune.backend.trial_status", "syne-tune").Trial
        self._table, self._seeded = table, _Seeded(seed)
        self._trials: dict[str, Any] = {}
        self._scheduler = moasha.MOASHA(
            {name: self._axis(found) for name, found in _distributions(table).items()},
            metrics=list(table.objectives),
            time_attr="epoch",
            max_t=table.epochs,
            random_seed=seed,
        )

    def propose(self) -> Keyed:
        """Return the scheduler's suggestion."""
        with self._seeded():
            config = self._scheduler.suggest().config
            number = len(self._trials)
            trial = self._trial(number, config, datetime.now(UTC))
            self._scheduler.on_trial_add(trial)
        self._trials[str(number)] = trial
        return Keyed(_member(self._table, config), str(number))

    def tell(
        self, key: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Do nothing: `report` passes all results to the scheduler."""

    def finished(self, key: str, values: Sequence[float] | None) -> None:
        """Do nothing: `report` passes all results to the scheduler."""

    def report(self, key: str, epoch: int, costs: Sequence[float], losses: Sequence[float]) -> bool:
        """Report an epoch to the scheduler; return whether it continues the trial."""
        names, values = self._table.objectives, [losses[-1], *costs]
        result = {**dict(zip(names, values, strict=True)), "epoch": epoch}
        with self._seeded():
            return str(self._scheduler.on_trial_result(self._trials[key], result)) == "CONTINUE"

    def resumable(self) -> list[str]:
        """Return nothing: this scheduler never resumes a stopped trial."""
        return []

    def _axis(self, distribution: Any) -> Any:
        if hasattr(distribution, "choices"):
            return self._config_space.choice(list(distribution.choices))
        span = range(distribution.low, distribution.high + 1, distribution.step)
        return self._config_space.choice(list(span))


class NepsMoAsha:
    """MO-ASHA of NePS with its default selection (epsilon net): random draws and promotions.

    A promoted candidate continues from the epoch at which it was paused.
    """

    def __init__(self, table: Table, seed: int) -> None:
        neps = _imported("neps", "neural-pipeline-search")
        algorithms = _imported("neps.optimizers.algorithms", "neural-pipeline-search")
        self._table, self._seeded = table, _Seeded(seed)
        axes = {name: _neps_axis(neps, found) for name, found in _distributions(table).items()}
        fidelity = neps.HPOInteger(lower=1, upper=table.epochs, is_fidelity=True)
        with self._seeded():
            space = neps.SearchSpace({**axes, "epochs": fidelity})
            self._asked = neps.AskAndTell(algorithms.moasha(space))
        self._trials: dict[str, Any] = {}
        self._next: Any = None

    def propose(self) -> Keyed:
        """Return the new candidate that `resumable` has kept, or ask for one."""
        trial = self._next or self._ask()
        self._next = None
        config = {name: value for name, value in trial.config.items() if name != "epochs"}
        return Keyed(_member(self._table, config), self._opened(trial))

    def tell(
        self, key: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Do nothing: `report` passes all results to the optimiser."""

    def finished(self, key: str, values: Sequence[float] | None) -> None:
        """Do nothing: `report` passes all results to the optimiser."""

    def report(self, key: str, epoch: int, costs: Sequence[float], losses: Sequence[float]) -> bool:
        """Continue to the requested epoch; then report the result and pause."""
        trial = self._trials[key]
        if epoch < trial.config["epochs"]:
            return True
        result = {"objective_to_minimize": [losses[-1], *costs], "cost": float(epoch)}
        with self._seeded():
            self._asked.tell(trial, result)
        return False

    def resumable(self) -> list[str]:
        """Ask for the next trial; return it if it is a promotion, else keep it for `propose`."""
        if self._next is None:
            trial = self._ask()
            if trial.metadata.id.split("_")[0] in self._trials:
                return [self._opened(trial)]
            self._next = trial
        return []

    def _ask(self) -> Any:
        with self._seeded():
            try:
                return self._asked.ask()
            except ValueError as error:  # from its selection, when no trial has ended yet
                raise UserError(
                    f"neps-moasha: NePS cannot be asked while three candidates run and none has "
                    f"ended ({error}): --workers 3 at most"
                ) from None

    def _opened(self, trial: Any) -> str:
        key = str(trial.metadata.id).split("_")[0]
        self._trials[key] = trial
        return key


def _neps_axis(neps: Any, distribution: Any) -> Any:
    if hasattr(distribution, "choices"):
        return neps.HPOCategorical(choices=list(distribution.choices))
    span = range(distribution.low, distribution.high + 1, distribution.step)
    return neps.HPOCategorical(choices=list(span))


def _distributions(table: Table) -> Mapping[str, Any]:
    return table.space.distributions()


def _member(table: Table, config: Mapping[str, Any]) -> Network:
    member: Network = table.space.architecture(table.space.suggest(_Config(config)))
    return member


def _imported(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{package} cannot be imported ({error}): pip install {package}") from None


def _own_rule(table: Table, asker: Asker) -> Stopping:
    """Return the asker itself, which is also the stopping rule."""
    return cast("Stopping", asker)


PEERS: dict[str, Contender] = {
    "syne-tune-moasha": Contender("Syne Tune MO-ASHA", "peer", SyneTuneMoAsha, _own_rule, True),
    "neps-moasha": Contender("NePS MO-ASHA", "peer", NepsMoAsha, _own_rule, True),
}
"""Frameworks by name. They stop early, so they need a table of several epochs: `vae`."""


def compare(names: Sequence[str], seeds: int, trials: int, workers: int, out: Path) -> str:
    """Run the searches without a result in `out`; write the comparison and return it as text."""
    searches = [
        PlannedSearch("vae", name, seed, trials, workers) for name in names for seed in range(seeds)
    ]
    for planned in missing_of(searches, out):
        run_contender(planned, PEERS[planned.sampler], out)
    return str(write_comparison(stored_results(searches[0], out), out).table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="+", choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100, help="budget, in full trainings")
    parser.add_argument("--workers", type=int, default=4, help="simulated workers")
    parser.add_argument("--out", type=Path, default=Path("nas-bench"), help="folder of results")
    chosen = parser.parse_args(arguments)
    try:
        print(compare(chosen.names, chosen.seeds, chosen.trials, chosen.workers, chosen.out))
    except UserError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
