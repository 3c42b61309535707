"""Real studies whose processes are killed: the short form of `python -m benchmarks.faults`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults.siege import Plan, Siege, undisturbed


@pytest.mark.parametrize(("storage", "runner"), [("journal", "local")])
def test_nothing_is_lost_whatever_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, runner: str
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    golden = undisturbed(Plan("undisturbed", 0, 0, trials=2, epochs=2, measure=False), tmp_path)
    plan = Plan("s", 3, 4, storage, runner, trials=2, epochs=2, measure=False)
    outcome = Siege(plan, tmp_path, golden).run()
    assert outcome.hits
    assert outcome.compared + len(outcome.failed) == 4
