"""The study's report: one HTML file that opens anywhere, offline, and its figures as PNG."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError
from studies.formats import format_value
from studies.records import StudyRecord
from studies.report_words import report_words

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from studies.panels import Panel

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(study: StudyRecord, path: Path | None = None, *, plots: bool = True) -> Path:
    """Write the study as one self-contained HTML file and return its path.

    Args:
        study: What to show; it may be unfinished.
        path: Where to write; `<folder>/report.html` by default. Folders are created.
        plots: Whether to draw figures. Without them the file needs no script library (4.8 MB less).

    Raises:
        UserError: The file cannot be written.
    """
    path = path or study.folder / "report.html"
    text = _render(study, plots)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: the report cannot be written ({error.strerror})") from None
    return path


def write_pngs(study: StudyRecord, folder: Path) -> list[Path]:
    """Write every figure of the report into `folder` as PNG, 1600 pixels wide; return the paths.

    Raises:
        UserError: No browser was found to draw with, or the folder cannot be written.
    """
    import kaleido
    from choreographer.browsers import BrowserFailedError, ChromeNotFoundError

    from studies.panels import panels

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
    shown = [p for group in panels(study).values() for p in group if p.figure is not None]
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


def _render(study: StudyRecord, plots: bool) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    environment.globals["format_value"] = format_value
    library = ""
    if plots:
        from plotly.offline import get_plotlyjs

        library = get_plotlyjs()
    context = {
        **report_words(study),
        **_figures(study, plots),
        "plotly_js": library,
        "plots": plots,
    }
    return environment.get_template("report.html").render(context, plots=plots)


def _code(text: str) -> Any:
    """Escape `text` and set what stands in backticks as code."""
    from markupsafe import Markup

    unbroken = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", html.escape(text))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", unbroken))


def _figures(study: StudyRecord, plots: bool) -> dict[str, Any]:
    from studies.pictures import strips

    context: dict[str, Any] = {
        "strips": strips(study), "panels": {}, "legend": [], "hovers": ""
    }  # fmt: skip
    if plots:
        from studies.figure_style import reference_marks
        from studies.figure_tables import hovers
        from studies.panels import panels

        groups = panels(study).items()
        context["panels"] = {name: [_embedded(p) for p in group] for name, group in groups}
        context["hovers"] = _script(json.dumps(hovers(study)))
        context["legend"] = list(reference_marks(list(study.references)).items())
    return context


def _embedded(panel: Panel) -> dict[str, str]:
    """Take the title out of the figure (the page sets it) and make the JSON safe in a script."""
    if panel.figure is None:
        return {"key": panel.key, "title": "", "caption": panel.caption, "json": "", "height": ""}
    figure: go.Figure = panel.figure
    title = str(figure.layout.title.text)
    figure.layout.title = None
    figure.layout.paper_bgcolor = "rgba(0, 0, 0, 0)"
    height = f"{figure.layout.height}px" if figure.layout.height else ""
    figure.layout.margin.t -= 40
    texts = {"key": panel.key, "title": title, "caption": panel.caption}
    return {**texts, "json": _script(str(figure.to_json())), "height": height}


def _script(text: str) -> str:
    """Make JSON safe inside a script element: no text of the study can close it."""
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
