"""Ask the question: run, store, compare and draw multi-objective studies; the `nas` command.

The names in `__all__` are this package's interface; its modules are internal and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.config.study import StudyConfig
    from studies.library.models import load_model
    from studies.library.running import run_study
    from studies.library.study import Study, list_studies, open_study
    from studies.record.trial import TrialRecord

__all__ = [
    "Study",
    "StudyConfig",
    "TrialRecord",
    "list_studies",
    "load_model",
    "open_study",
    "run_study",
]

_HOMES = {
    "Study": "studies.library.study",
    "StudyConfig": "studies.config.study",
    "TrialRecord": "studies.record.trial",
    "list_studies": "studies.library.study",
    "load_model": "studies.library.models",
    "open_study": "studies.library.study",
    "run_study": "studies.library.running",
}
"""The module of each name, which is imported at its first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
