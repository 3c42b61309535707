"""The study's report: one HTML file that opens anywhere, offline, and its figures as PNG."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError
from studies.pages import embedded, render, safe_json, write_page
from studies.records import StudyRecord
from studies.report_words import report_words

if TYPE_CHECKING:
    from studies.panels import Panel


def write_report(study: StudyRecord, path: Path | None = None, *, plots: bool = True) -> Path:
    """Write the study as one self-contained HTML file and return its path.

    Args:
        study: What to show; it may be unfinished.
        path: Where to write; `<folder>/report.html` by default. Folders are created.
        plots: Whether to draw figures. Without them the file needs no script library (4.8 MB less).

    Raises:
        UserError: The file cannot be written.
    """
    context = {**report_words(study), **_figures(study, plots)}
    text = render("report.html", context, plots=plots)
    return write_page(path or study.folder / "report.html", text)


def write_pngs(study: StudyRecord, folder: Path) -> list[Path]:
    """Write every figure of the report into `folder` as PNG, 1600 pixels wide; return the paths.

    Raises:
        UserError: No browser was found to draw with, or the folder cannot be written.
    """
    from studies.panels import panels

    return write_figures([p for group in panels(study).values() for p in group], folder)


def write_figures(shown: Sequence[Panel], folder: Path) -> list[Path]:
    """Write panels into `folder` as PNG, named by their keys; return the paths.

    Raises:
        UserError: as `write_pngs`.
    """
    import kaleido
    from choreographer.browsers import BrowserFailedError, ChromeNotFoundError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    size = {"format": "png", "width": 1000, "height": 620, "scale": 1.6}
    jobs = [{"fig": p.figure, "path": folder / f"{p.key}.png", "opts": size} for p in shown]
    try:
        # MathJax would be fetched from the internet; no label needs it.
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except (ChromeNotFoundError, BrowserFailedError):
        raise UserError(
            "PNG figures need Chrome or Chromium: install one (on Debian: apt install chromium), "
            "or run `plotly_get_chrome`; BROWSER_PATH names one elsewhere"
        ) from None
    return [folder / f"{p.key}.png" for p in shown]


def _figures(study: StudyRecord, plots: bool) -> dict[str, Any]:
    from studies.pictures import strips

    context: dict[str, Any] = {
        "strips": strips(study), "panels": defaultdict(list), "legend": [], "hovers": "",
        "drawn": "",
    }  # fmt: skip
    if plots:
        from studies.figure_style import reference_marks
        from studies.figure_tables import drawn_share, hovers
        from studies.panels import panels

        groups = panels(study).items()
        context["panels"] = {name: [embedded(p) for p in group] for name, group in groups}
        context["drawn"] = drawn_share(study)
        context["hovers"] = safe_json(json.dumps(hovers(study)))
        context["legend"] = list(reference_marks(list(study.references)).items())
    return context
