"""The parts of the user's own in a configuration, and the digests of their sources."""

from __future__ import annotations

from collections.abc import Mapping

from nas.own.blocks import find_block
from nas.own.imports import source_digest
from nas.own.objectives import find_objective
from search_spaces.errors import UserError
from studies.config.study import StudyConfig


def sources_of(config: StudyConfig) -> dict[str, str]:
    """Return the digest of the source of each part of the user's own, by its import string."""
    return {name: source_digest(name) for name in config.own_parts}


def require_parts(config: StudyConfig, sources: Mapping[str, str]) -> None:
    """Import the parts of the user's own, if their sources are those of the study.

    Args:
        config: The study's configuration.
        sources: Digests of the study's sources; those that are missing are not compared.

    Raises:
        UserError: a part cannot be imported here, or its source is another one.
    """
    for name, what in config.own_parts.items():
        if what == "objective":
            find_objective(name)
        if what == "block":
            find_block(name)
        here = source_digest(name)
        if (there := sources.get(name, here)) != here:
            raise UserError(
                f"{name}: its source is not that of the study (it was {there}, now {here}); "
                "restore it, or run a study of another name"
            )
