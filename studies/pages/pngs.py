"""Write figures as PNG files; a browser draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import UserError
from studies.pages.page import Panel

if TYPE_CHECKING:
    import plotly.graph_objects as go


def draw_panels(panels: Sequence[Panel], folder: Path) -> list[Path]:
    """Write panels into `folder` as PNG, 1600 pixels wide, named by their keys; return the paths.

    Raises:
        UserError: no browser was found for drawing, or the folder cannot be written.
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
        UserError: no browser was found for drawing, or the folder cannot be written.
    """
    import kaleido
    from choreographer.browsers import BrowserFailedError, ChromeNotFoundError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    size = {"format": "png", "width": width, "height": height, "scale": scale}
    paths = [folder / f"{name}.png" for name in figures]
    jobs = [
        {"fig": figure, "path": path, "opts": size}
        for figure, path in zip(figures.values(), paths, strict=True)
    ]
    try:
        # Kaleido would fetch MathJax from the internet; no label needs it.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except (ChromeNotFoundError, BrowserFailedError):
        raise UserError(
            "PNG figures need Chrome or Chromium: install one (on Debian: apt install chromium), "
            "or run `plotly_get_chrome`; set BROWSER_PATH if it is installed elsewhere"
        ) from None
    return paths
