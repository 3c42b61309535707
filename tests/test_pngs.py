"""Figures as PNGs: browsers that are missing, hang or crash, and what is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import psutil
import pytest

from search_spaces.errors import UserError
from studies.pages import pngs
from studies.pages.pngs import draw_pngs

FAKE = """
import json, sys
from pathlib import Path
for job in json.loads((Path(sys.argv[1]) / "figures.json").read_text()):
    assert job["opts"] == {"format": "png", "width": 30, "height": 20, "scale": 2}
    Path(job["path"]).write_bytes(job["fig"]["layout"]["title"]["text"].encode())
"""


def draw(folder: Path) -> list[Path]:
    figures = {name: go.Figure(layout={"title": name}) for name in ("loss", "latency")}
    return draw_pngs(figures, folder, width=30, height=20, scale=2)


def browser(path: Path, script: str, patch: pytest.MonkeyPatch) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    patch.setenv("BROWSER_PATH", str(path))


def left_behind(text: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if text in (one.info["cmdline"] or [])]


def with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def wait_until(happened: Callable[[], bool], patience_s: float = 60.0) -> None:
    end = time.monotonic() + patience_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_figure_is_written_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pngs, "_PROGRAM", FAKE)
    paths = draw(tmp_path / "figures")
    assert {path: path.read_text() for path in paths} == {
        tmp_path / "figures" / "loss.png": "loss",
        tmp_path / "figures" / "latency.png": "latency",
    }
    assert list(Path(tempfile.gettempdir()).glob("nas-pngs-*")) == []


def test_without_a_browser_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="install one"):
        draw(tmp_path / "figures")


@pytest.mark.skipif(sys.platform == "win32", reason="the fake browsers are shell scripts")
@pytest.mark.slow
def test_a_browser_that_hangs_is_given_up_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = "86399"
    browser(tmp_path / "hangs", f"sleep {seconds} & sleep {seconds}", monkeypatch)
    monkeypatch.setattr(pngs, "_PATIENCE_S", 4.0)
    with pytest.raises(UserError, match="the browser has drawn nothing for 4 s; set"):
        draw(tmp_path / "figures")
    assert list((tmp_path / "figures").iterdir()) == []
    assert left_behind(seconds) == []


@pytest.mark.skipif(sys.platform == "win32", reason="the fake browsers are shell scripts")
@pytest.mark.slow
def test_a_browser_ends_with_a_process_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = "86398"
    browser(tmp_path / "hangs", f"sleep {seconds}", monkeypatch)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = "from pathlib import Path; from tests.test_pngs import draw; draw(Path('figures'))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=with_path()) as process:
        wait_until(lambda: bool(left_behind(seconds)))
        assert list(tmp_path.glob("nas-pngs-*"))
        process.kill()
    wait_until(lambda: not left_behind(seconds))
    wait_until(lambda: not list(tmp_path.glob("nas-pngs-*")))


@pytest.mark.skipif(sys.platform == "win32", reason="the fake browsers are shell scripts")
@pytest.mark.slow
def test_a_browser_that_crashes_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    browser(tmp_path / "crashes", "echo libnss3.so: cannot open >&2; exit 127", monkeypatch)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "loss.png").write_text("of the last report")
    with pytest.raises(UserError, match=r"close immediately .*libnss3\.so: cannot open; set BROW"):
        draw(tmp_path / "figures")
    assert (tmp_path / "figures" / "loss.png").read_text() == "of the last report"


def test_a_drawing_process_that_fails_shows_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pngs, "_PROGRAM", "raise SystemExit('no memory')")
    with pytest.raises(UserError, match="PNG figures: no memory; set BROWSER_PATH"):
        draw(tmp_path / "figures")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/figures: cannot be written"):
        draw(tmp_path / "file" / "figures")
