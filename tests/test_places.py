"""Users without a home folder, and folders that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from nas.datasets.cache import cache_directory
from nas.datasets.dataset import DataConfig
from nas.datasets.files import existing_source
from profiling.errors import ProfilingError
from profiling.files import require_writable
from search_spaces.errors import UserError
from tests.helpers.command import nas

pwd = pytest.importorskip("pwd")

WORK = (
    "studies.bench.runs.run_all",
    "profiling.comparison.compare_backends",
    "profiling.onnx_export.onnx_model",
    "studies.paper.redraw.load_dataset",
)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this a user whom the system does not know, and who has no HOME."""

    def unknown(uid: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "NAS_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no folder be writable; permissions do not bind the tests where they run as root."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("chosen", [None, "~/cache", "~nobody-of-this-name/cache"])
def test_without_a_home_folder_the_cache_asks_for_its_own(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    if chosen:
        monkeypatch.setenv("NAS_CACHE_DIR", chosen)
    with pytest.raises(UserError, match="set NAS_CACHE_DIR to a folder that can be written"):
        cache_directory()
    monkeypatch.setenv("NAS_CACHE_DIR", "/somewhere")
    assert cache_directory() == Path("/somewhere")


@pytest.mark.usefixtures("homeless")
def test_images_in_no_home_folder() -> None:
    with pytest.raises(UserError, match="path: '~/faces' is in no known home folder"):
        existing_source(DataConfig(kind="folder", path=Path("~/faces")))


def test_a_writable_place_is_left_as_it_is(tmp_path: Path) -> None:
    require_writable(tmp_path)
    require_writable(tmp_path / "new" / "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_a_dangling_link_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep", tmp_path / "dangling"):
        with pytest.raises(ProfilingError, match=f"{folder}: cannot be written"):
            require_writable(folder)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize(
    "command",
    ["bench search --seeds 1", "profile backends original@32 -o rows.csv",
     "export original@32 --untrained --onnx model.onnx", "paper --size 32 --epochs 1"],
)  # fmt: skip
def test_a_folder_that_cannot_be_written_is_reported_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    for work in WORK:
        monkeypatch.setattr(work, _must_not_begin)
    monkeypatch.setattr("studies.paper.redraw.estimate", lambda job: None)
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("onnxscript")
    assert nas(*command.split()) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith(": cannot be written (Permission denied); choose another folder")
    assert list(tmp_path.iterdir()) == []


def _must_not_begin(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the work began")
