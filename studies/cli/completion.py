"""Names that a shell completes: studies, presets, spaces, references, samplers, backends.

Libraries are imported only when a shell asks for names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from studies.cli.help import TABLES
from studies.record.names import studies_in

Names = Callable[[click.Context], Iterable[str]]
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completing(*sources: Names, files: bool = False) -> Completer:
    """Return a function that completes the last of the names that commas separate.

    Args:
        sources: What there is to choose from.
        files: Whether the path of a file may be given as well.
    """

    def complete(
        context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, begun = incomplete.rpartition(",")
        names = [name for source in sources for name in source(context)]
        found = [f"{before}{comma}{name}" for name in names if name.startswith(begun)]
        paths = [CompletionItem(incomplete, type="file")] if files and not found else []
        return [*map(CompletionItem, found), *paths]

    return complete


def _studies(context: click.Context) -> list[str]:
    return studies_in(Path(context.params.get("root") or "nas-studies"))


def _trials(context: click.Context) -> list[str]:
    return [f"{name}#" for name in _studies(context)]


def _table(name: str) -> Names:
    return lambda context: TABLES[f"{{{name}}}"]()


def _spaces(_context: click.Context) -> Iterable[str]:
    from search_spaces.space import SPACES

    return SPACES


def _backends(_context: click.Context) -> Iterable[str]:
    from profiling.backends import BACKENDS

    return BACKENDS


STUDIES = completing(_studies)
CONFIGURATIONS = completing(_table("presets"), _studies, files=True)
ARCHITECTURES = completing(_table("references"), _trials, files=True)
SPACES = completing(_spaces, files=True)
SAMPLERS = completing(_table("samplers"))
OBJECTIVES = completing(_table("objectives"))
BACKENDS = completing(_backends)

study_argument = click.argument("name", shell_complete=STUDIES)
"""The name of a stored study."""
