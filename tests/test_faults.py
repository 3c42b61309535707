"""Real studies whose processes are killed: the short form of `python -m benchmarks.faults`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.siege import Plan, Siege, undisturbed
from tests.postgres import running_server

SMALL: dict[str, Any] = {"trials": 1, "epochs": 2, "measure": False, "patience_s": 2.0}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Losses of the study that nobody disturbs; its images stay in the cache for the others."""
    root = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE_DIR", str(root / "cache"))
        return undisturbed(Plan("undisturbed", 0, 0, workers=1, **SMALL), root)


@pytest.mark.parametrize(
    ("storage", "runner"),
    [("journal", "local"), ("postgres", "local"), ("journal", "ray"), ("postgres", "ray")],
)
def test_nothing_is_lost_whatever_is_killed(
    tmp_path: Path, golden: dict[str, float], storage: str, runner: str
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_server()) if storage == "postgres" else None
        address = server.database() if server else storage
        plan = Plan("s", 3, 4, address, runner, drivers=2 if server else 1, **SMALL)
        outcome = Siege(plan, tmp_path, golden, server).run()
    assert outcome.kills
    assert outcome.compared + len(outcome.failed) == plan.trials + 2
