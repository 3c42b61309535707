"""The study's report: one HTML file that opens anywhere, offline, and its figures as PNG."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.pages.page import embedded, render, safe_json, write_page
from studies.pages.pngs import draw_panels
from studies.record.records import StudyRecord
from studies.report.words import report_words

if TYPE_CHECKING:
    from studies.pages.pngs import draw_panels


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


def write_report_pngs(study: StudyRecord, folder: Path) -> list[Path]:
    """Write every figure of the report into `folder` as PNG, 1600 pixels wide; return the paths.

    Raises:
        UserError: No browser was found to draw with, or the folder cannot be written.
    """
    from studies.report.panels import panels

    return draw_panels([p for group in panels(study).values() for p in group], folder)


def _figures(study: StudyRecord, plots: bool) -> dict[str, Any]:
    from studies.report.pictures import strips

    context: dict[str, Any] = {
        "strips": strips(study), "panels": defaultdict(list), "legend": [], "hovers": "",
        "drawn": "",
    }  # fmt: skip
    if plots:
        from studies.pages.style import reference_marks
        from studies.report.figure_tables import drawn_share, hovers
        from studies.report.panels import panels

        groups = panels(study).items()
        context["panels"] = {name: [embedded(p) for p in group] for name, group in groups}
        context["drawn"] = drawn_share(study)
        context["hovers"] = safe_json(json.dumps(hovers(study)))
        context["legend"] = list(reference_marks(list(study.references)).items())
    return context
