"""Reading a study's journal: the attributes for records, and an incomplete last line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.scale import Setting, grow
from search_spaces.errors import UserError
from studies.storage.journal import ReadingJournal
from studies.store.frozen import record_of
from studies.store.store import StudyStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of fake evaluations; some trials were rejected."""
    grow(Setting(tmp_path, None, trials=12, epochs=1))
    return tmp_path / "scale"


def test_the_record_is_what_optuna_itself_replays(folder: Path) -> None:
    whole = JournalStorage(JournalFileBackend(str(folder / "journal.log"))).get_all_trials(0)
    store = StudyStore.open(folder.parent, "scale")
    assert store.record().trials == tuple(map(record_of, whole))
    assert {trial.state for trial in store.record().trials} == {"complete", "rejected"}
    assert all(trial.params for trial in whole)
    assert not any(trial.params for trial in store.study.trials)  # or nothing was left out


def test_a_reader_sees_what_was_written_since(folder: Path) -> None:
    journal = folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:30]) + lines[30][:-5])
    reader = ReadingJournal(journal)
    early = list(reader.read_logs(0))
    journal.write_bytes(b"".join(lines))
    late = list(reader.read_logs(len(early)))
    assert len(early) == 30
    logs = [json.loads(line) for line in lines]
    kept = [{k: v for k, v in log.items() if k not in ("distributions", "params")} for log in logs]
    assert early + late == kept


def test_a_name_like_that_of_what_is_left_out_is_kept(tmp_path: Path) -> None:
    log = {"op_code": 8, "user_attr": {"reason": '"distributions":{},"user_attrs":{}'}}
    (tmp_path / "j").write_text(json.dumps(log, separators=(",", ":")) + "\n", encoding="utf-8")
    assert list(ReadingJournal(tmp_path / "j").read_logs(0)) == [log]


def test_a_damaged_line_is_refused_unless_it_is_the_last(folder: Path) -> None:
    journal = folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    ended = len(StudyStore.open(folder.parent, "scale").record().complete)
    journal.write_bytes(b"".join(lines[:-1]) + b"{no JSON}\n")
    assert len(StudyStore.open(folder.parent, "scale").record().complete) in (ended, ended - 1)
    journal.write_bytes(b"".join([*lines[:8], b"{no JSON}\n", *lines[9:]]))
    with pytest.raises(UserError, match="damaged in line 9"):
        StudyStore.open(folder.parent, "scale").record()
