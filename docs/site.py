"""Fits the pages to the documentation site: `mkdocs.yml` names this file as a hook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PICTURE = re.compile(r"\]\(\.\./(studies/results/[^)]+\.png)\)")
"""A picture of a committed study, which lies outside `docs`."""
MARKS = re.compile(r"^```(\w+) .*$", flags=re.M)
"""The opening of a code block with words for the tests, such as `test`."""


NOTEBOOK = "tutorial.ipynb"


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of committed studies that pages show, and the notebook as a page."""
    cells = json.loads((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    page = "\n\n".join(text for cell in cells for text in _texts(cell))
    files.append(File.generated(config, "tutorial.md", content=page))
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for source in sorted({found for text in texts for found in PICTURE.findall(text)}):
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with paths and code blocks that the site understands."""
    linked = markdown.replace(f"]({NOTEBOOK})", "](tutorial.md)")
    return MARKS.sub(r"```\1", PICTURE.sub(r"](\1)", linked))


def _texts(cell: Any) -> Iterator[str]:
    """Yield a cell of the notebook, and what it has shown, as Markdown."""
    source = "".join(cell["source"])
    yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        plain = "".join(output.get("text", data.get("text/plain", "")))
        if "image/png" in data:
            yield f"![](data:image/png;base64,{''.join(data['image/png'].split())})"
        elif "text/html" in data:
            yield f"<div>{''.join(data['text/html'])}</div>"
        elif plain:
            yield f"```text\n{plain.rstrip()}\n```"
