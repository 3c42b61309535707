"""Other frameworks in the harness; each is skipped where it is not installed."""

from typing import Any

import pytest

from studies.bench.contenders import CONTENDERS
from studies.bench.simulation import simulate
from studies.bench.tables import Table

NEEDS = {"syne-tune-moasha": "syne_tune", "neps-moasha": "neps"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NEEDS)
def test_peer_searches_and_stops_early(name: str, curves_table: Table) -> None:
    pytest.importorskip(NEEDS[name], exc_type=ImportError)
    runs: list[Any] = []
    for _ in range(2):
        asker: Any = CONTENDERS[name].asker(curves_table, 0)
        runs.append(simulate(curves_table, asker, 8, workers=2, stopping=asker))
    first, again = runs
    assert len(first.events) == 8 * 9
    assert first.distinct + first.duplicates > 8
    assert 0 <= first.events[-1].regret < 1
    assert again.events == first.events


def test_every_peer_has_a_test() -> None:
    assert set(NEEDS) == {name for name, one in CONTENDERS.items() if one.family == "peer"}
