"""An HTML page, parsed as a browser does."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """Collects what a browser would fetch, the scripts, and the text outside of them.

    All rows of a table must have as many columns.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.data: dict[str, Any] = {}
        self.words: list[str] = []
        self._tables: list[list[int]] = []  # the number of columns of each row
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        for rows in self._tables:
            assert len(set(rows)) <= 1, f"rows of different lengths in {self.text}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if identity := named.get("id"):
            self.ids.append(identity)
        if tag == "table":
            self._tables.append([])
        elif tag == "tr":
            self._tables[-1].append(0)
        elif tag in ("td", "th"):
            self._tables[-1][-1] += int(named.get("colspan") or 1)
        if tag in ("script", "style"):
            self._open.append((tag, named.get("type") or ""))
        links = [named.get("src"), named.get("href"), named.get("srcset"), named.get("action")]
        self.fetched += [link for link in links if link]

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self.words.append(data)
        elif self._open[-1][1] == "application/json":
            self.data[self.ids[-1]] = json.loads(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))
