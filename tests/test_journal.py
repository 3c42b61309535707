"""Reading a study's journal: the attributes for records, and an incomplete last line."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.scale import Setting, grow
from search_spaces.errors import UserError
from studies.record.verdict import judged
from studies.storage.journal import Journal
from studies.storage.opening import open_storage
from studies.store.frozen import record_of
from studies.store.store import StudyStore
from tests.fakes.runs import config, run
from tests.helpers.command import nas

RUN = ["run", "quickstart", "--name", "s"]


def contents(root: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The root of a study `s` with one candidate."""
    run(tmp_path, config(search={"sampler": "random", "trials": 1}))
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study of fake evaluations; some trials were rejected."""
    grow(Setting(tmp_path, None, trials=12, epochs=1))
    return tmp_path / "scale"


def test_the_record_is_what_optuna_itself_replays(folder: Path) -> None:
    whole = JournalStorage(JournalFileBackend(str(folder / "journal.log"))).get_all_trials(0)
    store = StudyStore.open(folder.parent, "scale")
    assert store.record().trials == tuple(
        judged(record_of(one), store.limits or {}) for one in whole
    )
    assert {trial.state for trial in store.record().trials} == {"complete", "rejected"}
    assert all(trial.params for trial in whole)
    assert not any(trial.params for trial in store.study.trials)  # or nothing was left out


def test_a_reader_sees_what_was_written_since(folder: Path) -> None:
    journal = folder / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:30]) + lines[30][:-5])
    reader = Journal(journal)
    early = list(reader.read_logs(0))
    journal.write_bytes(b"".join(lines))
    late = list(reader.read_logs(len(early)))
    assert len(early) == 30
    logs = [json.loads(line) for line in lines]
    kept = [{k: v for k, v in log.items() if k not in ("distributions", "params")} for log in logs]
    assert early + late == kept


def test_a_name_like_that_of_what_is_left_out_is_kept(folder: Path) -> None:
    store = StudyStore.open(folder.parent, "scale")
    text = '"distributions":{},"user_attrs":{}'
    with store.writing():
        optuna.load_study(
            study_name="scale", storage=open_storage(f"journal:{folder / 'journal.log'}")
        ).set_user_attr("text", text)
    assert StudyStore.open(folder.parent, "scale").study.user_attrs["text"] == text


TRIAL = b'{"op_code":8,"worker_id":"w","trial_id":0,"user_attr":{"a":1}}\n'
DAMAGED = {
    "null": b"null\n",
    "a list": b"[1]\n",
    "a scalar": b"5\n",
    "empty": b"\n",
    "no JSON": b"{no JSON}\n",
    "not UTF-8": b'{"op_code":8,"worker_id":"\xff\xfe"}\n',
    "NUL bytes": b"\0" * 64 + b"\n",
    "deeply nested": b"[" * 100_000 + b"\n",
    "too many digits": b'{"op_code":' + b"9" * 5000 + b"}\n",
    "an unknown operation": TRIAL.replace(b":8,", b":99,"),
    "an operation that is true": TRIAL.replace(b":8,", b":true,"),
    "a huge trial": TRIAL.replace(b'"trial_id":0', b'"trial_id":' + b"9" * 400),
    "a trial that is true": TRIAL.replace(b'"trial_id":0', b'"trial_id":true'),
    "an unknown trial": TRIAL.replace(b'"trial_id":0', b'"trial_id":5000'),
    "an unknown study": b'{"op_code":1,"worker_id":"w","study_id":7}\n',
    "no writer": b'{"op_code":8,"trial_id":0,"user_attr":{"a":1}}\n',
    "a missing key": b'{"op_code":8,"worker_id":"w","trial_id":0}\n',
    "no attribute": TRIAL.replace(b'{"a":1}', b"{}"),
    "an attribute that is a list": TRIAL.replace(b'{"a":1}', b'[["a",1]]'),
    "a state without a time": (
        b'{"op_code":6,"worker_id":"w","trial_id":0,"state":1,"values":null}\n'
    ),
    "no time": b'{"op_code":4,"worker_id":"w","study_id":0,"datetime_start":"now"}\n',
    "attributes that are null": (
        b'{"op_code":4,"worker_id":"w","study_id":0,"datetime_start":null,"user_attrs":null}\n'
    ),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_refused_with_its_number_and_nothing_is_written(
    small: Path, line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = small / "s" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    for number in (2, 9, len(lines) + 1):
        journal.write_bytes(b"".join([*lines[: number - 1], line, *lines[number - 1 :], b"{torn"]))
        before = contents(small)
        for command in (["show", "s"], ["export", "s"], ["report", "s"], RUN):
            assert nas("study", *command, "--root", str(small)) == 2
            told = capsys.readouterr().err.strip().splitlines()
            assert len(told) == 1
            assert f"{journal}: damaged in line {number} (" in told[0]
            assert len(told[0]) < 400
            assert "restore the file from a copy" in told[0]
        assert contents(small) == before


def test_the_other_studies_are_listed_beside_a_damaged_one(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(small, config(name="other"))
    (small / "s" / "journal.log").write_bytes(b"null\n")
    assert nas("study", "list", "--root", str(small)) == 0
    printed = capsys.readouterr()
    assert "other" in printed.out
    told = printed.err.strip().splitlines()
    assert len(told) == 1
    assert "journal.log: not a journal of studies, or damaged in line 1" in told[0]


def test_what_is_cut_is_kept_beside_the_journal_and_reported(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = small / "s" / "journal.log"
    whole = journal.read_bytes()
    for number, torn in enumerate((b'{"op_code":8,"wor', b"\0\0\0"), start=1):
        journal.write_bytes(whole + torn)
        with StudyStore(small / "s").writing():
            pass
        assert journal.read_bytes() == whole
        kept = Path(f"{journal}.cut-{number}")
        assert kept.read_bytes() == torn
        assert f"{journal}: the last line was incomplete" in capsys.readouterr().err
    with StudyStore(small / "s").writing():
        pass
    assert capsys.readouterr().err == ""


def test_a_foreign_file_with_the_name_of_the_lock_is_kept(small: Path) -> None:
    lock = small / "s" / "journal.log.lock"
    lock.write_text("mine")
    with pytest.raises(UserError, match="move it"), StudyStore(small / "s").writing():
        pass
    assert lock.read_text() == "mine"


def test_an_entry_that_a_full_disk_cuts_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j")
    entry = {"op_code": 10, "worker_id": "w"}
    journal.append_logs([entry])

    def torn(self: JournalFileBackend, logs: object) -> None:
        with (tmp_path / "j").open("ab") as file:
            file.write(b'{"op_code":10,"wor')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(JournalFileBackend, "append_logs", torn)
        with pytest.raises(OSError, match="No space left"):
            journal.append_logs([entry])
    journal.append_logs([entry])
    assert list(Journal(tmp_path / "j").read_logs(0)) == [entry, entry]


@pytest.mark.parametrize("content", [b"", b'{"op_co', b'{"op_code":0,"worker_id":"w"'])
@pytest.mark.parametrize("left", ["study.yaml", "artefacts"])
def test_a_lost_journal_does_not_become_a_new_study(
    small: Path, capsys: pytest.CaptureFixture[str], content: bytes, left: str
) -> None:
    (small / "s" / "journal.log").write_bytes(content)
    (small / "s" / "artefacts" / ("0" * 12)).mkdir()
    if left == "artefacts":
        (small / "s" / "study.yaml").unlink()
    before = contents(small)
    assert nas("study", *RUN, "--root", str(small)) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "restore the storage from a copy, or remove that folder" in told[0]
    assert contents(small) == before


def test_a_folder_without_traces_of_a_study_begins_one_in_an_empty_journal(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "journal.log").touch()
    assert len(run(tmp_path, config()).complete) == 8
