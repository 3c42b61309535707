"""Help texts that name the entries of tables, so that no list is written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click


def _references() -> Iterable[str]:
    from search_spaces.references import REFERENCES

    return REFERENCES


def _samplers() -> Iterable[str]:
    from nas.search.samplers import SAMPLERS

    return SAMPLERS


def _objectives() -> Iterable[str]:
    from nas.objectives import OBJECTIVES

    return OBJECTIVES


def _presets() -> Iterable[str]:
    from studies.config.presets import presets

    return presets()


TABLES: dict[str, Callable[[], Iterable[str]]] = {
    "{references}": _references,
    "{samplers}": _samplers,
    "{objectives}": _objectives,
    "{presets}": _presets,
}
"""What stands for the names of a table in help texts, and the function that returns them."""


class TableHelp(click.Command):
    """A command in whose help `{samplers}` and the like stand for the names in a table.

    A table is imported only when help that names it is asked for.
    """

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help with the names in place."""
        self.help = _filled(self.help)
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                parameter.help = _filled(parameter.help)
        super().format_help(ctx, formatter)


def _filled(text: str | None) -> str | None:
    for mark, names in TABLES.items():
        if text is not None and mark in text:
            text = text.replace(mark, ", ".join(names()))
    return text
