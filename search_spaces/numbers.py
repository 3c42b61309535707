"""The numbers of configurations: finite, within a range, and never true or false."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

MOST = 10**9
"""Largest count. It is more than any run can reach, and far below what breaks arithmetic."""


def _no_bool(value: object) -> object:
    """Refuse booleans, which pydantic would convert to 0.0 or 1.0; numbers as text are allowed."""
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
"""A finite number."""

Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
"""A number of things, at least one."""

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
"""Seed of a random generator."""
