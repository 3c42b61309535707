"""Copies of artefacts in a store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nas.artefacts import CHECKPOINT
from nas.findings import Findings
from search_spaces.architecture import Architecture
from search_spaces.errors import UserError
from search_spaces.space import SearchSpace
from studies.run.crew import Alone
from studies.run.runner import Runner
from studies.storage.mirror import Mirror, store_url
from studies.store.store import StudyStore
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.evaluator import FakeEvaluator
from tests.fakes.runs import config


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    return f"memory://{uuid.uuid4().hex}/study"


def write(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_artefacts_of_one_driver_are_found_by_another(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here, "abc/weights", "w")
    write(here, "abc/deep/checkpoint", "epoch 1")
    write(here, "abc/.half-written", "x")
    write(here, "other/weights", "o")
    mirror = Mirror(here, url)
    mirror.push("abc")
    Mirror(there, url).pull("abc")
    assert files(there) == {"abc/weights": "w", "abc/deep/checkpoint": "epoch 1"}


def test_changed_files_are_copied_again_and_deleted_ones_removed(url: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    write(here, "abc/checkpoint", "epoch 1")
    write(here, "abc/weights", "early")
    mirror = Mirror(here, url)
    mirror.push("abc")
    (here / "abc" / "checkpoint").unlink()
    write(here, "abc/weights", "final weights")
    mirror.push("abc")
    Mirror(tmp_path / "there", url).pull()
    assert files(tmp_path / "there") == {"abc/weights": "final weights"}


def test_only_requested_files_are_fetched_and_local_ones_stay(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name in ("a/weights", "a/picture", "a/prior", "b/picture", "samples"):
        write(here, name, name)
    mirror = Mirror(here, url)
    for name in ("a", "b", "samples"):
        mirror.push(name)
    write(there, "b/picture", "mine")
    Mirror(there, url).pull(only=("picture", "prior"))
    assert files(there) == {"a/picture": "a/picture", "a/prior": "a/prior", "b/picture": "mine"}


def test_nothing_is_written_outside_the_folder(tmp_path: Path, monkeypatch: Any) -> None:
    mirror = Mirror(tmp_path / "folder", "memory://evil")
    monkeypatch.setattr(Mirror, "_stored", lambda self, name: [f"{self._root}/../../outside"])
    mirror.pull()
    assert not list(tmp_path.rglob("outside"))


def test_a_failing_store_is_reported_and_retried(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here", "abc/weights", "w")
    mirror = Mirror(tmp_path / "here", url)
    with monkeypatch.context() as broken:

        def fail(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        broken.setattr(mirror._store, "put_file", fail)
        mirror.push("abc")
    assert "abc was not copied (no route to host)" in capsys.readouterr().err
    mirror.push("abc")
    Mirror(tmp_path / "there", url).pull()
    assert files(tmp_path / "there") == {"abc/weights": "w"}


@pytest.mark.parametrize("address", ["nonsense://x", "file2://x"])
def test_an_unknown_store_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(UserError, match="--artefacts"):
        Mirror(tmp_path, address)


@pytest.mark.parametrize("address", ["file:///dev/null", "{}/file"])
def test_a_store_that_is_no_folder_is_refused(tmp_path: Path, address: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; give the folder of the store"):
        Mirror(tmp_path, address.format(tmp_path.as_uri()))


@pytest.mark.parametrize("asked", ["://", "file://", "a b://c", "x" * 5000])
def test_an_option_that_names_no_store_is_refused(asked: str) -> None:
    with pytest.raises(UserError, match="--artefacts"):
        store_url(asked)


class Writing(FakeEvaluator):
    """Writes a file for each architecture, and finds the file of an earlier evaluation."""

    def __init__(self, folder: Path, interrupt_on: int | None = None) -> None:
        super().__init__()
        self.folder, self._stop_on, self.found = folder, interrupt_on, 0

    def __call__(
        self, architecture: Architecture, known: Findings | None = None
    ) -> Iterator[Findings]:
        checkpoint = self.folder / architecture.digest / "checkpoint"
        self.found += checkpoint.exists()
        for findings in super().__call__(architecture, known):
            write(self.folder, f"{architecture.digest}/checkpoint", findings.step)
            yield findings
            if findings.step == "training" and self.calls == self._stop_on:
                raise KeyboardInterrupt


@pytest.mark.slow
def test_a_study_copies_its_artefacts_and_a_reader_fetches_them(url: str, tmp_path: Path) -> None:
    asked, space = config(), SearchSpace.load("quickstart")
    storage = f"sqlite:///{tmp_path / 'x.db'}"
    first = StudyStore(tmp_path / "a" / "s", storage)
    with first.writing():
        first.create(asked, space, ENVIRONMENT, artefacts=url)
        Runner(asked, space, first, Alone(Writing(first.artefacts))).run()
    second = StudyStore(tmp_path / "b" / "s", storage)
    second.fetch()
    assert files(second.artefacts) == files(first.artefacts)
    assert len(files(first.artefacts)) == 8
    with pytest.raises(UserError, match=r"--artefacts.*copies its artefacts to"):
        second.create(asked, space, ENVIRONMENT, artefacts="elsewhere")


def test_the_checkpoint_of_an_ended_trial_leaves_the_store_too(url: str, tmp_path: Path) -> None:
    asked, space = config(), SearchSpace.load("quickstart")
    store = StudyStore(tmp_path / "s")
    with store.writing():
        store.create(asked, space, ENVIRONMENT, artefacts=url)
        for name in ("weights", CHECKPOINT):
            write(store.artefacts, f"abc/{name}", name)
        assert store.mirror is not None
        store.mirror.push("abc")
        store.remove_checkpoint("abc")
    assert files(store.artefacts) == {"abc/weights": "weights"}
    Mirror(tmp_path / "there", url).pull()
    assert files(tmp_path / "there") == {"abc/weights": "weights"}


@pytest.mark.parametrize("password", ["hush", "hu sh", "hush@hush", "hush/hush"])
def test_a_store_with_a_password_in_its_address_is_refused(tmp_path: Path, password: str) -> None:
    asked, space = config(), SearchSpace.load("quickstart")
    store = StudyStore(tmp_path / "s")
    with (
        store.writing(),
        pytest.raises(UserError, match=r"--artefacts .*give it by the environment") as raised,
    ):
        store.create(asked, space, ENVIRONMENT, artefacts=f"memory://nas:{password}@bucket/x")
    assert "hu" not in str(raised.value)


@pytest.mark.slow
def test_a_trial_goes_on_from_the_checkpoint_of_another_folder(url: str, tmp_path: Path) -> None:
    asked, space = config(), SearchSpace.load("quickstart")
    storage = f"sqlite:///{tmp_path / 'x.db'}"
    found = []
    for folder, interrupt_on in (("a", 3), ("b", None)):
        store = StudyStore(tmp_path / folder / "s", storage)
        evaluator = Writing(store.artefacts, interrupt_on)
        with store.writing():
            store.create(asked, space, ENVIRONMENT, artefacts=url)
            runner = Runner(asked, space, store, Alone(evaluator))
            if interrupt_on:
                with pytest.raises(KeyboardInterrupt):
                    runner.run()
            else:
                runner.run()
        found.append(evaluator.found)
    assert found == [0, 1]
