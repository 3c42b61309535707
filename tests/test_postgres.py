"""Studies in PostgreSQL: several drivers, an unavailable server, and hidden passwords."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.record.records import StudyRecord
from studies.storage import locks, patience
from studies.storage.database import Database
from studies.storage.opening import open_storage
from studies.store import drivers
from studies.store.administration import delete_study, rename_study
from studies.store.frozen import OWNER
from studies.store.store import StudyStore
from tests.fakes.driver import start, trained, until
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config, run
from tests.helpers.command import nas
from tests.helpers.postgres import Server, free_port, running_server

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


def test_optuna_sees_a_study_in_postgresql_as_it_sees_one_in_a_journal(
    server: Server, tmp_path: Path
) -> None:
    asked = config(limits={"params": 5000.0})  # some are rejected, with constraints
    address = server.database()
    run(tmp_path / "a", asked, storage=address)
    run(tmp_path / "b", asked)
    backend = JournalFileBackend(str(tmp_path / "b" / "s" / "journal.log"))
    ours = optuna.load_study(study_name="s", storage=RDBStorage(address))
    theirs = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    assert len(ours.trials) == len(theirs.trials) > 2
    for one, other in zip(ours.trials, theirs.trials, strict=True):
        assert one.params == other.params
        assert one.distributions == other.distributions
        attributes = {name: value for name, value in one.user_attrs.items() if name != OWNER}
        assert (attributes, one.system_attrs) == (other.user_attrs, other.system_attrs)
        assert (one.state, one.values) == (other.state, other.values)
    assert any(trial.params for trial in ours.trials)


def test_trials_are_read_as_optuna_reads_them_but_for_their_parameters(
    server: Server, tmp_path: Path
) -> None:
    address = server.database()
    run(tmp_path, config(), storage=address)
    storage, theirs = Database(address), RDBStorage(address)
    study_id = storage.get_study_id_from_name("s")
    expected = theirs.get_all_trials(study_id)
    for trial in expected:
        trial.params, trial.distributions = {}, {}
    assert storage.get_all_trials(study_id) == expected
    assert storage.get_trial(expected[1]._trial_id) == expected[1]
    late = {expected[0]._trial_id}
    found = storage._get_trials(study_id, None, late, expected[-2]._trial_id)
    assert found == [expected[0], expected[-1]]
    assert storage.get_all_trials(study_id, states=(TrialState.FAIL,)) == []


@pytest.mark.slow
def test_three_drivers_one_killed_evaluate_each_architecture_once(
    server: Server, tmp_path: Path
) -> None:
    storage = server.database()
    started = [start(tmp_path, storage, f"driver{i}", trials=18) for i in range(3)]
    until(lambda: trained(tmp_path).total() > 8)
    started[1].stop(signal.SIGKILL)
    for driver in (started[0], started[2]):
        driver.end()
    whole(tmp_path / "driver0", storage, 18)
    again = [digest for digest, times in trained(tmp_path).items() if times > 1]
    assert len(again) <= 1  # what the killed one had trained and not recorded


@pytest.mark.slow
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


def test_others_do_not_wait_for_long_for_one_that_stopped_within_a_transaction(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STALE_S", 2.0)
    address = server.database().replace("postgresql:", "postgresql+psycopg:")
    stopped, other = open_storage(address), open_storage(address)
    study = stopped.create_new_study([StudyDirection.MINIMIZE], "s")
    engine = stopped._backend.engine  # type: ignore[attr-defined]
    with closing(engine.connect()) as connection:
        connection.execute(text("SELECT study_id FROM studies FOR UPDATE"))  # and no more of it
        waiting = threading.Thread(target=other.create_new_trial, args=(study,), daemon=True)
        waiting.start()
        waiting.join(30)
        assert not waiting.is_alive()
        with pytest.raises(DBAPIError) as refused:
            connection.execute(text("SELECT 1"))
    assert patience.is_away(refused.value)
    assert len(stopped.get_all_trials(study)) == 1


class Stopping(FakeEvaluator):
    """Crashes the server before its fourth evaluation; it is back after `back_s`, if given."""

    def __init__(self, server: Server, back_s: float | None = None) -> None:
        super().__init__()
        self._server, self._back_s = server, back_s
        self.back: threading.Timer | None = None

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        if self.calls == 3:
            self._server.stop("immediate")
            if self._back_s is not None:
                self.back = threading.Timer(self._back_s, self._server.start)
                self.back.start()
        yield from super().__call__(architecture, known)


def test_a_server_that_is_restarted_is_waited_for(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(patience, "LONGEST_S", 0.5)
    storage, evaluator = server.database(), Stopping(server, back_s=0.5)
    record = run(tmp_path, config(), evaluator, storage)
    assert evaluator.back is not None
    evaluator.back.join()
    assert record.trials == run(tmp_path / "journal", config()).trials
    assert whole(tmp_path, storage, 6).trials == record.trials
    printed = capsys.readouterr().err
    assert "does not answer" in printed
    assert server.password not in printed


def test_a_server_that_stays_away_ends_the_run_and_the_next_one_resumes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 0.5)
    monkeypatch.setattr(drivers, "BEAT_S", 0.1)  # its process goes on, so it is missed by its beats
    storage = server.database()
    with pytest.raises(
        UserError, match=r"no answer for \d+ s .*the same command resumes the study"
    ) as raised:
        run(tmp_path, config(), Stopping(server), storage)
    assert server.password not in str(raised.value)
    server.start()
    monkeypatch.setattr(patience, "PATIENCE_S", 60)
    run(tmp_path, config(), storage=storage)
    whole(tmp_path, storage, 6)


REFUSALS = {
    "wrong password": ("postgresql://nas:hush@127.0.0.1:{port}/postgres", "authentication failed"),
    "no such database": ("postgresql://nas:{password}@127.0.0.1:{port}/hush", "does not exist"),
    "no server": ("postgresql://nas:hush@127.0.0.1:1/postgres", "refused"),
    "no proxy": ("grpc://127.0.0.1:1", "no storage server"),
    "no port": ("grpc://127.0.0.1", "host and a port"),
}


@pytest.mark.parametrize("trouble", REFUSALS)
def test_a_storage_that_cannot_be_used_is_one_line_without_password(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    trouble: str,
) -> None:
    monkeypatch.setattr("studies.storage.opening.CONNECT_S", 1)
    form, reason = REFUSALS[trouble]
    storage = form.format(port=server.port, password=server.password)
    asked = ("--space", "tiny", "--objectives", "params,macs", "--trials", "1")
    there = ("--storage", storage, "--root", str(tmp_path))
    assert nas("study", "run", "quickstart", *asked, *there) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("nas: --storage")
    assert reason in line
    assert server.password not in line
    assert ":hush@" not in line


def test_the_password_is_nowhere_in_the_folder(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = server.database()
    asked = ("--space", "tiny", "--objectives", "params,macs", "--trials", "1", "--name", "s")
    there = ("--storage", storage, "--root", str(tmp_path), "--workers", "1")
    assert nas("study", "run", "quickstart", *asked, *there) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "s" / "report.html" in files
    assert not [path for path in files if server.password.encode() in path.read_bytes()]
    assert server.password not in str(StudyStore(tmp_path / "s", storage).study.user_attrs)
    monkeypatch.setenv("PGPASSWORD", server.password)  # as PostgreSQL's own programs take it
    assert len(StudyStore.open(tmp_path, "s").record().trials) == 3


def test_latencies_of_a_second_driver_elsewhere_have_the_scale_of_the_first(
    server: Server, tmp_path: Path
) -> None:
    asked = config(objectives=["reconstruction_loss", "latency_ms"])
    storage, space = server.database(), SearchSpace.load("quickstart")
    here = {**ENVIRONMENT, "device_name": "a", "original_latency_ms": 10.0}
    there = {**here, "device_name": "b", "original_latency_ms": 20.0}
    first, second = (StudyStore(tmp_path / folder / "s", storage) for folder in "12")
    first.create(asked, space, here)
    with pytest.raises(UserError, match=r"measured in another environment \(device_name was"):
        second.create(asked, space, there)
    second.create(asked, space, {**there, "device_name": "a"})
    assert second.anchors_ms == {"": 10.0}
    second.create(asked, space, there, mix=True)
    assert first.anchors_ms == second.anchors_ms == {"": 10.0}
    assert "device_name" in first.record().mixed[0]
    first.create(asked, space, here)


@pytest.mark.slow
def test_drivers_through_the_proxy_share_a_study(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    storage = server.database()
    with proxy(storage) as address:
        started = [start(tmp_path, address, f"driver{i}", trials=12) for i in range(2)]
        until(lambda: trained(tmp_path).total() > 4)
        started[1].stop(signal.SIGKILL)
        started[0].end()
        whole(tmp_path / "driver0", address, 12)
    assert len({t.digest for t in StudyStore(tmp_path / "x" / "s", storage).record().trials}) == 14


@contextmanager
def proxy(storage: str) -> Iterator[str]:
    """Serve a storage by the command, at a free port."""
    port = free_port()
    command = [sys.executable, "-m", "studies.cli.main", "storage", "serve", storage]
    command += ["--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as served:
        try:
            assert served.stderr is not None
            printed = served.stderr.readline()
            assert f"grpc://localhost:{port}" in printed
            assert ":***@" in printed
            yield f"grpc://localhost:{port}"
        finally:
            served.send_signal(signal.SIGINT)
            assert served.wait(60) == 130


def test_a_study_that_no_driver_runs_is_renamed_and_deleted(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", server.password)
    asked, storage = config(search={"sampler": "random", "trials": 1}), server.database()
    run(tmp_path, asked, storage=storage)
    rename_study(tmp_path, "s", "t")
    asked, store = asked.model_copy(update={"name": "t"}), StudyStore(tmp_path / "t")
    with store.writing():
        store.create(asked, asked.load_space(), ENVIRONMENT)
        assert store.record().searched == 1
        with pytest.raises(UserError, match=r"study 't' is being run by process \d+ on "):
            delete_study(tmp_path, "t")
    delete_study(tmp_path, "t")
    assert not (tmp_path / "t").exists()
    with pytest.raises(UserError, match="contains no study 't'"):
        StudyStore(tmp_path / "t", storage).record()
