"""Make HTML pages: templates, figures as safe JSON, one self-contained file."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.artefacts import write_or_refuse
from search_spaces.errors import UserError
from studies.record.formats import (
    counted,
    format_bytes,
    format_count,
    format_ms,
    format_percent,
    format_rate,
    format_shape,
    format_value,
)
from studies.record.table_files import STDOUT, to_stdout

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TEMPLATES = Path(__file__).parents[1] / "templates"
_WORDS = (counted, format_bytes, format_count, format_ms, format_percent, format_rate, format_shape,
          format_value)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One figure of a page.

    Attributes:
        key: Its name in the page, and its file name as PNG without the suffix.
        figure: None if there is too little data to draw.
        caption: Text below the figure.
    """

    key: str
    figure: go.Figure | None
    caption: str


def render(template: str, context: Mapping[str, Any], *, plots: bool = True) -> str:
    """Render a template; with `plots`, include the script library that draws figures."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(  # the stylesheet is that of `profiling`'s page
            [jinja2.FileSystemLoader(_TEMPLATES), jinja2.PackageLoader("profiling")]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["code"] = _code
    environment.globals |= {word.__name__: word for word in _WORDS}
    library = ""
    if plots:
        from plotly.offline import get_plotlyjs

        library = get_plotlyjs()
    found = environment.get_template(template)
    return found.render({**context, "plotly_js": library, "plots": plots})


def write_page(path: Path, text: str, what: str = "report") -> Path:
    """Write a page, creating its folder, and return its path.

    Args:
        path: File to write, or `-` for standard output.
        text: The page.
        what: Name of the page in the error message.

    Raises:
        UserError: the page cannot be written.
    """
    if path == STDOUT:
        to_stdout(text.encode())
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: the {what} cannot be written ({error.strerror})") from None
    write_or_refuse(path, text.encode())
    return path


def embedded(panel: Panel) -> dict[str, str]:
    """Return a panel as template values: title, caption, height and JSON safe in a script.

    The title is removed from the figure, because the page shows it.
    """
    if panel.figure is None:
        return {"key": panel.key, "title": "", "caption": panel.caption, "json": "", "height": ""}
    figure: go.Figure = panel.figure
    title = str(figure.layout.title.text)
    figure.layout.title = None
    figure.layout.paper_bgcolor = "rgba(0, 0, 0, 0)"
    height = f"{figure.layout.height}px" if figure.layout.height else ""
    figure.layout.margin.t -= 40
    texts = {"key": panel.key, "title": title, "caption": panel.caption}
    return {**texts, "json": safe_json(str(figure.to_json())), "height": height}


def safe_json(text: str) -> str:
    """Escape JSON for a script element, so that no text in it can close the element."""
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _code(text: str) -> Any:
    """Escape `text` and mark up the parts in backticks as code."""
    from markupsafe import Markup

    unbroken = re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", html.escape(text))
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", unbroken))
