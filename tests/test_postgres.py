"""Studies in PostgreSQL: several drivers, a server that goes away, and passwords nobody sees."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies import patience
from studies.records import StudyRecord
from studies.store import StudyStore
from tests.command import nas
from tests.fake_driver import start, trained, until
from tests.fake_evaluator import FakeEvaluator
from tests.postgres import Server, running_server
from tests.test_runner import ENVIRONMENT, config, run

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install '.[postgres]'")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as running:
        yield running


def whole(folder: Path, storage: str, trials: int) -> StudyRecord:
    """Return a study after checking that it has its trials, each once, and none is left running."""
    store = StudyStore(folder / "s", storage)
    assert {trial.state for trial in store.study.trials} == {TrialState.COMPLETE}
    record = store.record()
    assert len({trial.digest for trial in record.trials}) == len(record.trials) == trials + 2
    assert [t.reference for t in record.trials if t.reference] == ["original", "modified"]
    return record


def test_a_study_in_postgresql_is_the_same_as_in_a_journal(server: Server, tmp_path: Path) -> None:
    database = run(tmp_path / "a", config(), storage=server.database())
    journal = run(tmp_path / "b", config())
    assert database.trials == journal.trials


def test_three_drivers_one_killed_evaluate_each_architecture_once(
    server: Server, tmp_path: Path
) -> None:
    storage = server.database()
    drivers = [start(tmp_path, storage, f"driver{i}", trials=24) for i in range(3)]
    until(lambda: trained(tmp_path).total() > 8)
    drivers[1].stop(signal.SIGKILL)
    for driver in (drivers[0], drivers[2]):
        driver.end()
    whole(tmp_path / "driver0", storage, 24)
    again = [digest for digest, times in trained(tmp_path).items() if times > 1]
    assert len(again) <= 1  # what the killed one had trained and not told


def test_a_driver_of_another_machine_is_taken_for_gone_when_it_does_not_move(
    server: Server, tmp_path: Path
) -> None:
    storage = server.database()
    far = start(tmp_path, storage, "far", step_s=0.5, machine="another")
    until(lambda: trained(tmp_path).total() >= 1)
    far.stop(signal.SIGSTOP)
    start(tmp_path, storage, "near").end()
    record = whole(tmp_path / "near", storage, 6)
    far.stop(signal.SIGCONT)  # and finds that its trial is another's by now
    far.end()
    assert whole(tmp_path / "far", storage, 6).trials == record.trials
