"""Frameworks that decide themselves how long a candidate is trained.

An adapter of their interfaces is both the asker and the stopping rule. They have no inactive axes,
and train a network again when they draw it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from benchmarks.peers.common import Keyed, Seeded, distributions, imported, member
from search_spaces.errors import UserError
from studies.bench.tables import Table


class SyneTuneMoAsha:
    """MO-ASHA of Syne Tune (Schmucker et al. 2021): random draws, stopped at rungs 1, 3, 9, ...

    Rungs are sorted by non-dominated sorting of all objectives at that epoch.
    """

    def __init__(self, table: Table, seed: int) -> None:
        moasha = imported("syne_tune.optimizer.schedulers.multiobjective.moasha", "syne-tune")
        self._config_space = imported("syne_tune.config_space", "syne-tune")
        self._trial = imported("syne_tune.backend.trial_status", "syne-tune").Trial
        self._table, self._seeded = table, Seeded(seed)
        self._trials: dict[str, Any] = {}
        self._scheduler = moasha.MOASHA(
            {name: self._axis(found) for name, found in distributions(table).items()},
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
        return Keyed(member(self._table, config), str(number))

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
        neps = imported("neps", "neural-pipeline-search")
        algorithms = imported("neps.optimizers.algorithms", "neural-pipeline-search")
        self._table, self._seeded = table, Seeded(seed)
        axes = {name: _neps_axis(neps, found) for name, found in distributions(table).items()}
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
        return Keyed(member(self._table, config), self._opened(trial))

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
