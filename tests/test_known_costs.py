"""Costs of many architectures computed together agree with those computed one by one."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from nas.evaluate import STATIC_COSTS, static_costs
from nas.objectives import OBJECTIVES
from nas.predict.known_costs import known_costs, known_limits
from nas.predict.predictor import LatencyPredictor
from search_spaces.space import SearchSpace


class Triples:
    """Predicts that everything takes three times as long as `original`."""

    def predict_ms(self, architectures: list[Any], original_ms: float) -> Any:
        return np.full(len(architectures), 3 * original_ms)


@pytest.mark.slow
def test_what_is_exact_is_counted_and_what_is_not_is_unknown() -> None:
    space, rng = SearchSpace.load("quickstart"), np.random.default_rng(0)
    architectures = [space.architecture(space.sample(rng)) for _ in range(5)]
    names = ["params", "reconstruction_loss", "flops", "latency_ms", "peak_memory_bytes"]
    found = known_costs(names)(architectures)
    alone = [static_costs(architecture) for architecture in architectures]
    assert found[:, 0].tolist() == [costs["params"] for costs in alone]
    assert found[:, 1].tolist() == [costs["flops"] for costs in alone]
    assert np.isnan(found[:, 2:]).all()


@pytest.mark.parametrize("name", ["latency_ms", "predicted_latency_ms"])
def test_a_latency_is_predicted_where_there_is_a_predictor(name: str) -> None:
    space = SearchSpace.load("tiny")
    architectures = [space.architecture(space.sample(np.random.default_rng(0)))]
    predictor = cast("LatencyPredictor", Triples())
    costs = known_costs(["reconstruction_loss", name], predictor=predictor, anchor_ms=7.0)
    assert costs(architectures).tolist() == [[21.0]]


@pytest.mark.slow
def test_limits_on_counts_are_decided_beforehand() -> None:
    space, rng = SearchSpace.load("quickstart"), np.random.default_rng(0)
    architectures = [space.architecture(space.sample(rng)) for _ in range(12)]
    params = np.array([static_costs(architecture)["params"] for architecture in architectures])
    limits = known_limits({"params": float(np.median(params)), "latency_ms": 1.0})
    assert limits is not None
    assert (limits.names, limits.predicted) == (("params",), frozenset())
    assert (limits.excess(architectures)[:, 0] <= 0).tolist() == (
        params <= np.median(params)
    ).tolist()
    assert known_limits({"latency_ms": 1.0, "peak_memory_bytes": 1.0}) is None


@pytest.mark.parametrize(
    ("limits", "kept", "predicted"),
    [
        ({"latency_ms": 21.1}, True, {"latency_ms"}),
        ({"latency_ms": 20.9}, False, {"latency_ms"}),
        ({"predicted_latency_ms": 20.9}, False, set()),
        ({"predicted_latency_ms": 21.0}, True, set()),
    ],
)
def test_a_latency_is_aimed_at_where_it_is_predicted(
    limits: dict[str, float], kept: bool, predicted: set[str]
) -> None:
    space = SearchSpace.load("tiny")
    architectures = [space.architecture(space.sample(np.random.default_rng(0)))]
    known = known_limits(limits, cast("LatencyPredictor", Triples()), 7.0)
    assert known is not None
    assert known.predicted == predicted
    assert (known.excess(architectures) <= 0).tolist() == [[kept]]


@pytest.mark.parametrize(
    "name", [name for name, objective in OBJECTIVES.items() if objective.cost == "static"]
)
def test_static_objectives_are_counted(name: str) -> None:
    """All but the one that needs a predictor; and whatever is counted is an objective."""
    assert name in STATIC_COSTS or name == "predicted_latency_ms"
    space = SearchSpace.load("tiny")
    costs = static_costs(space.architecture(space.sample(np.random.default_rng(0))))
    assert costs.keys() == STATIC_COSTS.keys() <= OBJECTIVES.keys()
    assert min(costs.values()) > 0
