"""Architectures, the search spaces that contain them, and the two reference models.

The names in `__all__` are this package's interface; its modules are internal and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture
    from search_spaces.errors import UserError
    from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES
    from search_spaces.space import SPACES, SearchSpace

__all__ = [
    "MODIFIED",
    "ORIGINAL",
    "REFERENCES",
    "SPACES",
    "Architecture",
    "SearchSpace",
    "UserError",
]

_HOMES = {
    "MODIFIED": "search_spaces.references",
    "ORIGINAL": "search_spaces.references",
    "REFERENCES": "search_spaces.references",
    "SPACES": "search_spaces.space",
    "Architecture": "search_spaces.architecture",
    "SearchSpace": "search_spaces.space",
    "UserError": "search_spaces.errors",
}
"""The module of each name, which is imported at its first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
