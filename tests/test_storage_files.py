"""Files that a storage's address names: foreign ones are left alone, and each has one driver."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from profiling.errors import ProfilingError
from profiling.locks import open_lock
from search_spaces.errors import UserError
from studies.store.store import StudyStore
from tests.fakes.runs import config, run
from tests.helpers.command import nas


def database(path: Path, *tables: str) -> None:
    with closing(sqlite3.connect(path)) as made:
        for table in tables:
            made.execute(f"CREATE TABLE {table} (x)")
        made.execute("PRAGMA user_version = 1")
        made.commit()


FOREIGN: dict[str, Callable[[Path], object]] = {
    "JSON": lambda path: path.write_text('{"a": 1}'),
    "JSON lines": lambda path: path.write_text('{"a": 1}\n{"b": 2}\n'),
    "text": lambda path: path.write_text("no newline at the end"),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "a database": lambda path: database(path, "people"),
    "a database with a table like ours": lambda path: database(path, "studies", "people"),
    "half a database": lambda path: path.write_bytes(b"SQLite format 3\0" + b"x" * 5000),
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
}


def state(root: Path) -> dict[str, tuple[float, bytes | None]]:
    """Return modification time and content of everything below a folder."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("scheme", ["journal:", "sqlite:///"])
@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused_untouched(
    tmp_path: Path, make: Callable[[Path], object], scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, root = tmp_path / "x" / "precious", tmp_path / "studies"
    path.parent.mkdir()
    make(path)
    before = state(tmp_path)
    command = ["study", "run", "quickstart", "--storage", f"{scheme}{path}", "--root", str(root)]
    assert nas(*command) == 2
    assert state(tmp_path) == before
    (root / "s").mkdir(parents=True)
    (root / "s" / "study.yaml").write_text(f"storage: {scheme}{path}\n")
    before = state(tmp_path)
    for reading in (["show", "s"], ["export", "s"], ["run", "quickstart", "--name", "s"]):
        assert nas("study", *reading, "--root", str(root)) == 2
    assert nas("study", "list", "--root", str(root)) == 0
    told = capsys.readouterr().err.strip().splitlines()
    assert all(str(path) in line or "precious" in line for line in told[:4])
    assert state(tmp_path) == before


def test_names_that_lead_nowhere_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "none" / "j", tmp_path / ("n" * 300)):
        for scheme in ("journal:", "sqlite:///"):
            address = f"{scheme}{path}"
            command = ["study", "run", "quickstart", "--storage", address, "--root", str(tmp_path)]
            assert nas(*command) == 2
            assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_database_whose_creation_was_killed_is_completed(tmp_path: Path) -> None:
    database(tmp_path / "x.db", "studies", "trials")
    with closing(sqlite3.connect(tmp_path / "x.db")) as begun:
        begun.execute("DROP TABLE studies")
        begun.execute("DROP TABLE trials")
    assert len(run(tmp_path, config(), storage=f"sqlite:///{tmp_path / 'x.db'}").complete) == 8


@pytest.mark.slow
def test_a_damaged_database_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.db"
    run(tmp_path, config(), storage=f"sqlite:///{path}")
    whole, page = path.read_bytes(), 4096
    contents = [whole[:at] + b"\xff" * page + whole[at + page :] for at in (page, 5 * page)]
    contents += [whole[: len(whole) // 2], whole.replace(b'"params"', b'params""'), b""]
    for content in contents:
        path.write_bytes(content)
        for command in (["show", "s"], ["export", "s"], ["run", "quickstart", "--name", "s"]):
            assert nas("study", *command, "--root", str(tmp_path)) == 2
            told = capsys.readouterr().err.strip().splitlines()
            assert len(told) == 1
            assert str(path) in told[0]
            assert path.read_bytes() == content


@contextmanager
def driver(root: Path, storage: str) -> Iterator[None]:
    """Run another process that has opened a study for writing."""
    code = (
        "import sys; from pathlib import Path; from studies.store.store import StudyStore\n"
        "with StudyStore(Path(sys.argv[1]) / 's', sys.argv[2]).writing():\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root), storage],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("scheme", ["journal:", "sqlite:///"])
@pytest.mark.slow
def test_a_file_has_one_driver_by_whatever_way_it_is_reached(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    run(tmp_path / "z", config(), storage=f"{scheme}{home / 'j'}")
    (tmp_path / "link").symlink_to(home / "j")
    (tmp_path / "folder").symlink_to(home)
    monkeypatch.chdir(tmp_path)
    ways = ["home/j", "link", "folder/j", f"{tmp_path}/folder/../home/j", "./link"]
    with driver(tmp_path / "a", f"{scheme}{home / 'j'}"):
        for number, way in enumerate(ways):
            with (
                pytest.raises(UserError, match=r"being run by process \d+, and a file has one"),
                StudyStore(tmp_path / f"b{number}" / "s", f"{scheme}{way}").writing(),
            ):
                pass
    with StudyStore(tmp_path / "c" / "s", f"{scheme}{tmp_path / 'link'}").writing():
        pass


def test_a_file_with_hard_links_has_no_driver(tmp_path: Path) -> None:
    run(tmp_path, config())
    os.link(tmp_path / "s" / "journal.log", tmp_path / "other")
    with pytest.raises(UserError, match="hard links"), StudyStore(tmp_path / "s").writing():
        pass
    assert len(StudyStore.open(tmp_path, "s").record().complete) == 8


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "file", "folder", "FIFO"])
def test_only_a_lock_is_opened_as_one(tmp_path: Path, kind: str) -> None:
    lock, precious = tmp_path / "lock", tmp_path / "precious"
    precious.write_text("precious")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: lock.symlink_to(precious),
        "dangling": lambda: lock.symlink_to(tmp_path / "none"),
        "hard link": lambda: os.link(precious, lock),
        "file": lambda: lock.write_text("precious"),
        "folder": lock.mkdir,
        "FIFO": lambda: os.mkfifo(lock),
    }
    make[kind]()
    before = state(tmp_path)
    with pytest.raises(ProfilingError, match="lock: is not the file of a lock; move it away"):
        open_lock(lock)
    assert state(tmp_path) == before


def test_a_lock_that_is_a_link_is_not_followed_by_a_run(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "journal.log.driver").symlink_to(precious)
    with pytest.raises(ProfilingError, match="move it away"), StudyStore(tmp_path / "s").writing():
        pass
    assert precious.read_text() == "precious"
