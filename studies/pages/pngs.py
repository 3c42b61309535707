"""Write figures as PNG files; a browser draws them.

The browser is started by a process of its own (`drawing`), because a browser may hang or crash, and
Kaleido then waits for ever. Whatever happens, no process of it is left.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from profiling.files import write_whole
from search_spaces.errors import UserError
from studies.pages.drawing import NO_BROWSER
from studies.pages.page import Panel

if TYPE_CHECKING:
    import plotly.graph_objects as go

_PATIENCE_S = 60.0
"""Maximum seconds without a new figure. On a busy machine a browser starts within 20 s."""

_PROGRAM = "from studies.pages.drawing import main; main()"
_END_S = 5.0
_USUAL = re.compile(r"^wrapper CLI:|^\[(INFO|WARNING):|dbus")
"""What browsers print that work."""

_LONGEST_REASON = 200


def draw_panels(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Write panels into `folder` as PNG, 1600 pixels wide, named by their keys; return the paths.

    Raises:
        UserError: as of `draw_pngs`.
    """
    figures = {panel.key: panel.figure for panel in panels if panel.figure is not None}
    return draw_pngs(figures, folder, width=1000, height=620, scale=1.6)


def draw_pngs(
    figures: Mapping[str, go.Figure], folder: Path, *, width: int, height: int, scale: float
) -> list[Path]:
    """Write figures into `folder` as `NAME.png` and return the paths.

    Args:
        figures: Figures by file name without the suffix.
        folder: Folder to write to; it is created if necessary.
        width: Width of the layout in pixels.
        height: Height of the layout in pixels.
        scale: Pixels of the file for each pixel of the layout.

    Raises:
        UserError: no browser was found, or it failed or did not draw a figure for a minute; or the
            folder cannot be written. Then no figure is written.
    """
    size = {"format": "png", "width": width, "height": height, "scale": scale}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="nas-pngs-", ignore_cleanup_errors=True) as desk:
            drawn = {name: Path(desk) / f"{n}.png" for n, name in enumerate(figures)}
            jobs = [
                {"fig": json.loads(figure.to_json()), "path": str(drawn[name]), "opts": size}
                for name, figure in figures.items()
            ]
            _draw(jobs, Path(desk))
            for name, path in drawn.items():
                write_whole(folder / f"{name}.png", path.read_bytes())
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    return [folder / f"{name}.png" for name in figures]


def _draw(jobs: Sequence[Mapping[str, object]], desk: Path) -> None:
    """Draw in another process; its browser keeps its files in the folder `desk`.

    Raises:
        UserError: not all figures were drawn.
    """
    (desk / "figures.json").write_text(json.dumps(jobs), encoding="utf-8")
    with (desk / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(desk)],
            env=_environment(desk), stdin=subprocess.PIPE, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        code = _finished(process, desk)
    finally:
        _end(process, desk)
    if code == NO_BROWSER:
        raise UserError(
            "PNG figures need Chrome or Chromium: install one (on Debian: apt install chromium), "
            "or run `plotly_get_chrome`; set BROWSER_PATH if it is installed elsewhere"
        )
    if code != 0:
        raise UserError(
            f"PNG figures: {_reason(code, desk)}; set BROWSER_PATH to a browser that works"
        )


def _environment(desk: Path) -> dict[str, str]:
    path = os.pathsep.join(part for part in sys.path if part)
    ours = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(desk)}
    try:
        Path.home()
    except RuntimeError:  # without a home folder Kaleido does not look for a browser
        ours["HOME"] = str(desk)
    return ours


def _finished(process: subprocess.Popen[bytes], desk: Path) -> int | None:
    """Return the exit code of the drawing process; None if it draws nothing for too long."""
    drawn, since = 0, time.monotonic()
    while process.poll() is None:
        now = sum(path.stat().st_size > 0 for path in desk.glob("*.png"))
        if now > drawn:
            drawn, since = now, time.monotonic()
        if time.monotonic() - since > _PATIENCE_S:
            return None
        time.sleep(0.05)
    return process.returncode


def _end(process: subprocess.Popen[bytes], desk: Path) -> None:
    """End the drawing process and its browser, also processes that their parents have left."""
    left: list[psutil.Process] = []
    with suppress(psutil.Error):
        left = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    for other in psutil.process_iter():
        with suppress(psutil.Error):
            if other.environ().get("TMPDIR") == str(desk):
                left.append(other)
    for other in left:
        with suppress(psutil.Error):
            other.kill()
    psutil.wait_procs(left, timeout=_END_S)


def _reason(code: int | None, desk: Path) -> str:
    """Say why nothing was drawn: what failed, and the last line that the browser has printed."""
    if code is None:
        failure = f"the browser has drawn nothing for {_PATIENCE_S:.0f} s"
    else:
        failure = _last_line(desk / "reason.txt") or _last_line(desk / "output.txt")
        failure = failure or f"the drawing process has ended with exit code {code}"
    said = _last_line(desk / "browser.log")
    return f"{failure}; the browser printed: {said}" if said else failure


def _last_line(path: Path) -> str:
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        spoken = (line.strip() for line in reversed(lines) if not _USUAL.search(line))
        return next((line for line in spoken if line), "")[:_LONGEST_REASON]
    return ""
