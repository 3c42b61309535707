"""Real studies whose processes are killed: the short form of `python -m benchmarks.faults`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.siege import Plan, Siege, undisturbed
from tests.helpers.postgres import Server

SMALL: dict[str, Any] = {"trials": 1, "epochs": 2, "measure": False, "patience_s": 2.0}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Losses of the study that nobody disturbs; its images stay in the cache for the others."""
    root = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(root / "cache"))
        return undisturbed(Plan("undisturbed", 0, 0, workers=1, **SMALL), root)


@pytest.mark.parametrize(
    ("runner", "workers"), [("local", 2), pytest.param("ray", 1, marks=pytest.mark.ray)]
)
def test_nothing_is_lost_whatever_is_killed(
    tmp_path: Path, golden: dict[str, float], runner: str, workers: int
) -> None:
    besiege(Plan("s", 3, 4, "journal", runner, workers, **SMALL), tmp_path, golden)


@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_nothing_in_postgresql_is_lost_whatever_is_killed(
    tmp_path: Path, golden: dict[str, float], server: Server, runner: str
) -> None:
    plan = Plan("s", 3, 4, server.database(), runner, workers=1, drivers=2, **SMALL)
    besiege(plan, tmp_path, golden, server)


def besiege(plan: Plan, root: Path, golden: dict[str, float], server: Server | None = None) -> None:
    outcome = Siege(plan, root, golden, server).run()
    assert outcome.kills
    assert outcome.compared + len(outcome.failed) == plan.trials + 2
