"""The page of a study's compressed models, and the section of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.pages.page import render, write_page
from studies.record.compressed import FOLDER, read_stages
from studies.record.compressed_words import stage_words
from studies.record.records import StudyRecord


def compression_words(study: StudyRecord) -> dict[str, Any]:
    """Return the stages of a study as texts, and a line for each damaged record."""
    stages, damaged = read_stages(study.folder) if study.trained else ([], [])
    return {"stages": [stage_words(study, one) for one in stages], "damaged": damaged}


def write_compression_page(study: StudyRecord) -> Path:
    """Write the page of a study's compressed models into its folder, and return the path.

    Raises:
        UserError: the file cannot be written.
    """
    context = {"study": study, "compressed": compression_words(study)}
    text = render("compress.html", context, plots=False)
    return write_page(study.folder / FOLDER / "report.html", text, "page")
