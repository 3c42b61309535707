"""The names of studies, which are used as folder names, in pages and in commands."""

from __future__ import annotations

import re
from pathlib import Path

from search_spaces.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")

HEAD = "study.yaml"
"""The file in a study's folder with the storage's address and a copy of the configuration."""

NAME_RULE = "use up to 80 letters, digits, '.', '_' and '-', and begin with a letter or digit"


def is_name(text: str) -> bool:
    """Return whether a text can name a study; a path cannot."""
    return _NAME.fullmatch(text) is not None


def studies_in(root: Path) -> list[str]:
    """Return the names of the studies in a folder, sorted."""
    heads = (path for path in root.glob(f"*/{HEAD}") if is_name(path.parent.name))
    return sorted(path.parent.name for path in heads if path.is_file())


def require_name(text: str, option: str = "") -> str:
    """Return a study's name unchanged.

    Args:
        text: The name.
        option: The option that it comes from, for the message.

    Raises:
        UserError: it cannot name a study.
    """
    if not is_name(text):
        raise UserError(f"{option} {text[:80]!r} cannot name a study: {NAME_RULE}".strip())
    return text
