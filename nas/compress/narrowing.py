"""Architectures that a trained model can be pruned to: the same blocks, narrower."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.errors import UserError

WIDTHS = frozenset({"width", "growth_rate", "stem_width", "head_width", "seed_width"})
"""Fields that count channels."""

NARROWED = WIDTHS | {"layers", "latent_size"}
"""Fields that pruning may make smaller; all others stay as they are."""

MULTIPLE = 8
"""A proposed width is a multiple of this number where the width that it replaces is one."""


def require_narrowing(wide: Architecture, narrow: Architecture, source: str = "prune") -> None:
    """Check that a model of one architecture can be pruned to another one.

    Args:
        wide: The architecture of the trained model.
        narrow: The architecture to prune it to.
        source: What the message names as the origin of `narrow`.

    Raises:
        UserError: it cannot; the message names the first field that differs.
    """
    if wide.own_blocks:
        raise UserError(
            f"{source}: the model has blocks of your own ({', '.join(wide.own_blocks)}), whose "
            "channels pruning cannot follow"
        )
    for field, before, after in _differing(wide.to_dict(), narrow.to_dict()):
        if isinstance(before, list):
            raise UserError(
                f"{source}: the number of {field} is {len(after)}, that of the trained model is "
                f"{len(before)}; pruning keeps all stages"
            )
        counts = isinstance(before, int) and isinstance(after, int)
        if field.rpartition(".")[2] not in NARROWED or not counts:
            raise UserError(
                f"{source}: {field} is {_shown(after)}, that of the trained model is "
                f"{_shown(before)}; pruning changes only widths, layers, growth rates and the "
                "latent size"
            )
        if after > before:
            raise UserError(
                f"{source}: {field} is {after}, that of the trained model is {before}; pruning "
                "only makes it smaller"
            )


def narrowed(architecture: Architecture, share: float) -> Architecture:
    """Return the architecture with a share of each width, rounded to an allowed multiple.

    A width is a multiple of 8, 4 or 2 if the one that it replaces is, as far as the share leaves
    at least one multiple. Layers and latent size are not changed.

    Args:
        architecture: The architecture of the trained model.
        share: Share of the channels to keep, above 0 and at most 1.
    """

    def scaled(value: Any, field: str = "") -> Any:
        if isinstance(value, Mapping):
            return {name: scaled(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [scaled(one) for one in value]
        return _scaled(value, share) if field in WIDTHS and value is not None else value

    return Architecture.from_dict(scaled(architecture.to_dict()))


def _scaled(width: int, share: float) -> int:
    wanted = width * share
    multiple = math.gcd(width, MULTIPLE)
    while multiple > max(1.0, wanted):
        multiple //= 2
    return min(width, multiple * max(1, math.floor(wanted / multiple + 0.5)))


def _differing(before: Any, after: Any, field: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each field that differs, with both values; lists of different lengths as a whole."""
    if isinstance(before, Mapping):
        for name in before:
            yield from _differing(before[name], after[name], f"{field}.{name}".lstrip("."))
    elif isinstance(before, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _differing(*pair, f"{field}.{number}")
    elif before != after:
        yield field, before, after


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
