"""The study's report: one HTML file that opens without a network, and its figures as PNG."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from studies.pages.page import embedded, render, safe_json, write_page
from studies.pages.pngs import draw_panels
from studies.record.records import StudyRecord
from studies.report.words import report_words


def write_report(study: StudyRecord, path: Path | None = None, *, plots: bool = True) -> Path:
    """Write the study as one self-contained HTML file and return its path.

    Args:
        study: The study; it may be unfinished.
        path: File to write, by default `<folder>/report.html`; `-` is standard output. Folders are
            created.
        plots: Whether to draw figures. Without them the script library is left out (4.8 MB less).

    Raises:
        UserError: the file cannot be written.
    """
    context = {**report_words(study), **_figures(study, plots)}
    text = render("report.html", context, plots=plots)
    return write_page(path or study.folder / "report.html", text)


def write_report_pngs(study: StudyRecord, folder: Path) -> list[Path]:
    """Write every figure of the report into `folder` as PNG, 1600 pixels wide; return the paths.

    Raises:
        UserError: no browser was found for drawing, or the folder cannot be written.
    """
    from studies.report.panels import report_panels

    return draw_panels([p for group in report_panels(study).values() for p in group], folder)


def _figures(study: StudyRecord, plots: bool) -> dict[str, Any]:
    from studies.report.pictures import picture_rows
    from studies.report.prior import prior_rows

    rows = picture_rows(study)
    context: dict[str, Any] = {
        "picture_rows": rows, "prior_rows": prior_rows(study, rows),
        "panels": defaultdict(list), "legend": [], "hovers": "", "drawn": "",
    }  # fmt: skip
    if plots:
        from studies.pages.style import reference_marks
        from studies.report.figure_tables import drawn_share, hovers
        from studies.report.panels import report_panels

        groups = report_panels(study).items()
        context["panels"] = {name: [embedded(p) for p in group] for name, group in groups}
        context["drawn"] = drawn_share(study)
        context["hovers"] = safe_json(json.dumps(hovers(study)))
        context["legend"] = list(reference_marks(list(study.references)).items())
    return context
