"""Fits the pages to the documentation site: `mkdocs.yml` names this file as a hook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
PICTURE = re.compile(r"\]\(\.\./(studies/results/[^)]+\.png)\)")
"""A picture of a committed study, which lies outside `docs`."""
MARKS = re.compile(r"^```(\w+) .*$", flags=re.M)
"""The opening of a code block with words for the tests, such as `test`."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of committed studies that pages show."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    for source in sorted({found for text in texts for found in PICTURE.findall(text)}):
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page with paths and code blocks that the site understands."""
    return MARKS.sub(r"```\1", PICTURE.sub(r"](\1)", markdown))
