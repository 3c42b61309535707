"""Frameworks that train every candidate in full: pymoo and BoTorch.

They get what their users would give them: every axis as a categorical variable, costs by their
logarithms where a model is fitted to them, and populations as small as those of `nas.search`, since
a default of 100 would spend the whole budget on random draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.common import Keyed, Seeded, distributions, imported, member
from nas.search.samplers import GENERATION
from studies.bench.tables import Network, Table

_START, _POOL, _SAMPLES = 10, 512, 64  # of BoTorch: random draws, candidates, Monte Carlo samples


class Pymoo:
    """A genetic algorithm of pymoo (Blank and Deb 2020), with its operators for mixed variables.

    Workers wait at the end of a generation, since pymoo is told whole generations.
    """

    def __init__(self, table: Table, seed: int, make: Callable[..., Any]) -> None:
        mixed = imported("pymoo.core.mixed", "pymoo")
        problems = imported("pymoo.core.problem", "pymoo")
        variables = imported("pymoo.core.variable", "pymoo")
        self._table = table
        choices = {name: variables.Choice(options=span) for name, span in _choices(table).items()}
        problem = problems.Problem(vars=choices, n_obj=len(table.objectives))
        once = mixed.MixedVariableDuplicateElimination()
        self._algorithm = make(
            pop_size=GENERATION,
            sampling=mixed.MixedVariableSampling(),
            mating=mixed.MixedVariableMating(eliminate_duplicates=once),
            eliminate_duplicates=once,
        )
        self._algorithm.setup(problem, termination=("n_gen", 10**9), seed=seed, verbose=False)
        self._generation: Any = None
        self._next: Iterator[int] = iter(())
        self._told: dict[str, list[float]] = {}

    def propose(self) -> Keyed | None:
        """Return the next of the generation; None while others of it are being trained."""
        number = next(self._next, None)
        if number is None:
            if self._generation is not None:
                if len(self._told) < len(self._generation):
                    return None
                values = [self._told[str(place)] for place in range(len(self._generation))]
                self._generation.set("F", np.array(values))
                self._generation.apply(lambda one: one.evaluated.add("F"))
                self._algorithm.tell(infills=self._generation)
            self._generation, self._told = self._algorithm.ask(), {}
            self._next = iter(range(len(self._generation)))
            number = next(self._next)
        return Keyed(member(self._table, self._generation[number].X), str(number))

    def tell(
        self, key: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Keep the objectives until the generation is complete."""
        assert values is not None  # a table has no failures
        self._told[key] = list(values)


class BoTorchNehvi:
    """qLogNEHVI of BoTorch (Daulton et al. 2021, Ament et al. 2023) over a pool of candidates.

    One Gaussian process per objective, with BoTorch's defaults, on one-hot axes and negative
    logarithms. The pool is the space, or `_POOL` random draws from it.
    """

    def __init__(self, table: Table, seed: int) -> None:
        self._botorch = imported("botorch", "botorch")
        self._table, self._seeded, self._rng = table, Seeded(seed), np.random.default_rng(seed)
        self._codes = {name: {one: place for place, one in enumerate(span)}
                       for name, span in _choices(table).items()}  # fmt: skip
        self._open: dict[str, np.ndarray[Any, Any]] = {}
        self._inputs: list[np.ndarray[Any, Any]] = []
        self._values: list[list[float]] = []
        self._seen: set[str] = set()

    def propose(self) -> Keyed | None:
        """Return the unseen candidate of the pool with the highest acquisition."""
        pool = self._pool()
        if not pool:
            return None
        digests = list(pool)
        place = 0
        if len(self._values) + len(self._open) >= _START and len(self._values) > 1:
            with self._seeded():
                place = self._best(np.array([self._encoded(one) for one, _ in pool.values()]))
        assignment, network = pool[digests[place]]
        self._seen.add(network.digest)
        self._open[network.digest] = self._encoded(assignment)
        return Keyed(network, network.digest)

    def tell(
        self, key: str, values: Sequence[float] | None, violations: Mapping[str, float] | None
    ) -> None:
        """Add an observation."""
        assert values is not None
        self._inputs.append(self._open.pop(key))
        self._values.append([-float(np.log(max(one, 1e-12))) for one in values])

    def _pool(self) -> dict[str, tuple[Mapping[str, Any], Network]]:
        space, found = self._table.space, dict[str, tuple[Mapping[str, Any], Network]]()
        small = space.size <= 2 * _POOL
        drawn = space.enumerate() if small else (space.sample(self._rng) for _ in range(2 * _POOL))
        for assignment in drawn:
            network = space.architecture(assignment)
            if network.digest not in self._seen:
                found.setdefault(network.digest, (assignment, network))
            if not small and len(found) == _POOL:
                break
        shuffled = self._rng.permutation(len(found))
        items = list(found.items())
        return dict(items[place] for place in shuffled)

    def _encoded(self, assignment: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        given = self._table.space.to_optuna(assignment)
        blocks = []
        for name, codes in self._codes.items():
            block = np.zeros(len(codes))
            if name in given:
                block[codes[given[name]]] = 1
            blocks.append(block)
        return np.concatenate(blocks)

    def _best(self, pool: np.ndarray[Any, Any]) -> int:
        import torch

        models = imported("botorch.models", "botorch")
        logei = imported("botorch.acquisition.multi_objective.logei", "botorch")
        mll = imported("gpytorch.mlls", "botorch")
        sampling = imported("botorch.sampling.normal", "botorch")
        outcome = imported("botorch.models.transforms.outcome", "botorch")
        hypervolume = imported("botorch.utils.multi_objective.hypervolume", "botorch")
        inputs = torch.from_numpy(np.array(self._inputs))
        values = torch.tensor(self._values, dtype=torch.float64)
        scaled = outcome.Standardize
        processes = [
            models.SingleTaskGP(inputs, values[:, [one]], outcome_transform=scaled(m=1))
            for one in range(values.shape[1])
        ]
        model = models.ModelListGP(*processes)
        fit = imported("botorch.fit", "botorch").fit_gpytorch_mll
        fit(mll.SumMarginalLogLikelihood(model.likelihood, model))
        waiting = torch.from_numpy(np.array(list(self._open.values()))) if self._open else None
        acquisition = logei.qLogNoisyExpectedHypervolumeImprovement(
            model=model,
            ref_point=hypervolume.infer_reference_point(values),
            X_baseline=inputs,
            X_pending=waiting,
            sampler=sampling.SobolQMCNormalSampler(torch.Size([_SAMPLES]), seed=0),
            prune_baseline=True,
        )
        with torch.no_grad():
            parts = torch.split(torch.from_numpy(pool)[:, None], 128)
            return int(torch.cat([acquisition(part) for part in parts]).argmax())


def _pymoo(module: str, name: str) -> Callable[[Table, int], Pymoo]:
    def make(table: Table, seed: int) -> Pymoo:
        kind = getattr(imported(f"pymoo.algorithms.moo.{module}", "pymoo"), name)
        return Pymoo(table, seed, kind)

    return make


sms_emoa, nsga2 = _pymoo("sms", "SMSEMOA"), _pymoo("nsga2", "NSGA2")


def _choices(table: Table) -> dict[str, list[Any]]:
    return {
        name: list(one.choices) if hasattr(one, "choices") else _span(one)
        for name, one in distributions(table).items()
    }


def _span(distribution: Any) -> list[int]:
    return list(range(distribution.low, distribution.high + 1, distribution.step))
