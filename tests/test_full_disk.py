"""A full disk, and damaged files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.artefacts import full_disk_refused, write_or_refuse
from profiling import files
from profiling.files import sweep
from search_spaces.errors import UserError
from studies.store.store import StudyStore
from tests.helpers.command import nas

SMALL = ["study", "run", "quickstart", "--space", "tiny", "--name", "s", "--trials", "1"]
SMALL += ["--objectives", "reconstruction_loss,params", "--images", "30", "--threads", "1"]
SMALL += ["--epochs", "2", "--workers", "1"]


def fill(monkeypatch: pytest.MonkeyPatch, when: Callable[[str], bool]) -> None:
    """Let the disk be full for flushes of files whose name is `when`."""
    flush = os.fsync

    def refused(descriptor: int) -> None:
        if when(str(Path(f"/proc/self/fd/{descriptor}").readlink())):
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refused)


@pytest.mark.slow
@pytest.mark.usefixtures("narrow_references")
@pytest.mark.parametrize("full", ["checkpoint", "weights", "reconstructions", "journal"])
def test_a_full_disk_ends_the_study_in_one_line_and_it_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path / "cache"))
    command = [*SMALL, "--workers", "1", "--root", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        room = 25 if full == "journal" else 1

        def late(path: str) -> bool:
            written.append(path)
            return full in path and sum(full in one for one in written) > room

        fill(patch, late)
        for _ in range(
            4 if full == "checkpoint" else 1
        ):  # the candidate is not blamed for it, however often
            assert nas(*command) == 2
            told = capsys.readouterr().err.strip().splitlines()
            assert "No space left on device); make room and run the same command" in told[-1]
            assert not [line for line in told if "Traceback" in line]
    before = {
        trial.number: trial.values
        for trial in StudyStore.open(tmp_path, "s").study.trials
        if trial.values
    }
    assert nas(*command) == 0
    record = StudyStore.open(tmp_path, "s").record()
    assert [trial.state for trial in record.trials] == ["complete"] * 3
    after = {t.number: t.values for t in StudyStore.open(tmp_path, "s").study.trials}
    assert before.items() <= after.items()


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    write_or_refuse(path, b"old")
    fill(monkeypatch, lambda _: True)
    with pytest.raises(UserError, match=r"x: cannot be written \(No space left"):
        write_or_refuse(path, b"new")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_only_what_a_dead_process_of_this_host_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    host = files._host()
    mine, dead = f"a/.x.{host}.{os.getpid()}.part", f"a/.x.{host}.{2**22 + 1}.part"
    names = [mine, dead, f".report.html.{host}.{2**22 + 1}.part", "a/.x.elsewhere-.1.part", "a/y"]
    for name in names:
        (tmp_path / name).touch()
    sweep(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {mine, "a/.x.elsewhere-.1.part", "a/y"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, UserError), (errno.EROFS, UserError), (errno.EIO, OSError)],
)
def test_only_what_room_would_cure_asks_for_room(
    tmp_path: Path, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected), full_disk_refused(tmp_path):
        raise OSError(number, "reason")
