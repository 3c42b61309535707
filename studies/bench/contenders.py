"""The contenders of a search comparison: our samplers, and Optuna's with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.search import EarlyStopping, make_proposer
from nas.search.samplers import quiet_optuna
from search_spaces.errors import UserError, nearest
from studies.bench.simulation import Asker, Stopping
from studies.bench.tables import Network, Table

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Contender:
    """One way to search.

    Attributes:
        title: Name in tables and figures.
        family: `ours` and `ablation` (ours, with a part changed) never train a network twice;
            `optuna` and `peer` (`benchmarks.peers`) train whatever is proposed.
        asker: Makes the sampler for a table and a seed.
        stopping: Makes the rule for early stopping for a table and an asker, if there is a rule.
        epochs_needed: Whether it needs a table of several epochs.
        only: The only table on which it differs from another contender, or None for all tables.
    """

    title: str
    family: str
    asker: Callable[[Table, int], Asker]
    stopping: Callable[[Table, Asker], Stopping] | None = None
    epochs_needed: bool = False
    only: str | None = None


def contender(name: str) -> Contender:
    """Return one of `CONTENDERS`; raise `UserError` for another name."""
    if name not in CONTENDERS:
        known = ", ".join(CONTENDERS)
        raise UserError(f"sampler {name!r}: none of {known}{nearest(name, CONTENDERS)}")
    return CONTENDERS[name]


def contenders_for(table: Table) -> list[str]:
    """Return the names of all contenders that can search this table."""
    return [
        name
        for name, one in CONTENDERS.items()
        if (table.epochs > 1 or not one.epochs_needed) and one.only in (None, table.name)
    ]


def _deduplicated(sampler: str) -> Callable[[Table, int], Asker]:
    def make(table: Table, seed: int) -> Asker:
        return make_proposer(table.space, sampler, table.objectives, seed)

    return make


EXACT_COSTS = ("params", "macs")
"""Costs that follow from an architecture exactly, without building or measuring anything."""


def _pareto(
    known: Collection[str] = EXACT_COSTS, structure: bool = True, **options: Any
) -> Callable[[Table, int], Asker]:
    """Return a maker of our own sampler, with exact costs for `known` and the others learned.

    Without `structure` it uses only the axes, even where a table has more features of its members.
    """

    def make(table: Table, seed: int) -> Asker:
        names = table.objectives[1:]
        unknown = [index for index, name in enumerate(names) if name not in known]

        def costs(members: Sequence[Network]) -> npt.NDArray[np.float64]:
            rows = np.asarray([table.entries[member.digest].costs for member in members])
            rows[:, unknown] = np.nan
            return rows

        exact = costs if known else None
        return make_proposer(
            table.space,
            "pareto",
            table.objectives,
            seed,
            exact,
            features=table.features if structure else None,
            **options,
        )

    return make


@dataclass(frozen=True)
class _Proposal:
    architecture: Network


class RawOptuna:
    """Optuna's ask and tell as in its documentation: repetitions are ordinary proposals.

    Inactive axes are not suggested. A proposal that the space forbids is reported as failed, and
    Optuna is asked again.
    """

    def __init__(self, table: Table, sampler: optuna.samplers.BaseSampler) -> None:
        import optuna

        self._space = table.space
        with quiet_optuna():
            self._study = optuna.create_study(
                directions=["minimize"] * len(table.objectives), sampler=sampler
            )
        self._open: dict[str, list[Any]] = {}

    def propose(self) -> _Proposal:
        """Return Optuna's next valid proposal."""
        import optuna

        with quiet_optuna():
            while True:
                trial = self._study.ask()
                assignment = self._space.suggest(trial)
                if self._space.problem(assignment) is None:
                    break
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        member = self._space.architecture(assignment)
        self._open.setdefault(member.digest, []).append(trial)
        return _Proposal(member)

    def tell(
        self,
        digest: str,
        values: Sequence[float] | None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """Report the objectives to the first open trial of this architecture."""
        with quiet_optuna():
            self._study.tell(self._open[digest].pop(0), values)


def _raw(name: str, **options: Any) -> Callable[[Table, int], Asker]:
    def make(table: Table, seed: int) -> Asker:
        import optuna

        with quiet_optuna():
            sampler = getattr(optuna.samplers, name)(seed=seed, **options)
        return RawOptuna(table, sampler)

    return make


def _stopping(table: Table, asker: Asker) -> Stopping:
    return EarlyStopping(table.epochs)


def _stopping_at_once(table: Table, asker: Asker) -> Stopping:
    return EarlyStopping(table.epochs, grace=1)


def _stopping_by_extrapolation(table: Table, asker: Asker) -> Stopping:
    return EarlyStopping(table.epochs, rungs=(), extrapolate=True)


CONTENDERS: dict[str, Contender] = {
    "pareto": Contender("pareto", "ours", _pareto()),
    "pareto-stopping": Contender("pareto, early stopping", "ours", _pareto(), _stopping, True),
    "pareto-stopping-at-once": Contender(
        "pareto, stopping from the first epoch on", "ablation", _pareto(), _stopping_at_once, True
    ),
    "pareto-extrapolating": Contender(
        "pareto, stopping by extrapolation alone",
        "ablation",
        _pareto(),
        _stopping_by_extrapolation,
        True,
    ),
    "pareto-all-known": Contender(
        "pareto, latency known as well", "ablation", _pareto((*EXACT_COSTS, "latency_ms"))
    ),
    "pareto-accurate": Contender(
        "pareto, focus on low losses", "ablation", _pareto(focus="accurate")
    ),
    "pareto-cheap": Contender("pareto, focus on low costs", "ablation", _pareto(focus="cheap")),
    "pareto-no-costs": Contender("pareto without exact costs", "ablation", _pareto(())),
    "pareto-refined": Contender(
        "pareto, refined as in a large space",
        "ablation",
        _pareto(screen=100, refine=10),
        only="nb201",
    ),
    "pareto-axes-only": Contender(
        "pareto without features of structure",
        "ablation",
        _pareto(structure=False),
        only="nb201",
    ),
    "pareto-no-surrogate": Contender(
        "pareto without surrogate", "ablation", _pareto(surrogate=False)
    ),
    "random": Contender("random", "ours", _deduplicated("random")),
    "tpe": Contender("TPE, multivariate and grouped", "ours", _deduplicated("tpe")),
    "nsga2": Contender("NSGA-II", "ours", _deduplicated("nsga2")),
    "nsga3": Contender("NSGA-III", "ours", _deduplicated("nsga3")),
    "qmc": Contender("QMC", "ours", _deduplicated("qmc")),
    "random-stopping": Contender(
        "random, early stopping", "ours", _deduplicated("random"), _stopping, True
    ),
    "tpe-stopping": Contender(
        "TPE, multivariate and grouped, early stopping",
        "ours",
        _deduplicated("tpe"),
        _stopping,
        True,
    ),
    "optuna-random": Contender("Optuna random", "optuna", _raw("RandomSampler")),
    "optuna-tpe": Contender("Optuna TPE", "optuna", _raw("TPESampler")),
    "optuna-tpe-group": Contender(
        "Optuna TPE, multivariate and grouped",
        "optuna",
        _raw("TPESampler", multivariate=True, group=True),
    ),
    "optuna-nsga2": Contender("Optuna NSGA-II", "optuna", _raw("NSGAIISampler")),
    "optuna-nsga3": Contender("Optuna NSGA-III", "optuna", _raw("NSGAIIISampler")),
    "optuna-qmc": Contender(
        "Optuna QMC",
        "optuna",
        _raw("QMCSampler", scramble=True, warn_independent_sampling=False),
    ),
}
"""Contenders by their names on the command line. Optuna's samplers have Optuna's defaults."""
