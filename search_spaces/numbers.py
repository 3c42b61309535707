"""The numbers of configurations: finite, within a range, and never true or false."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context
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


def at_least(value: float, digits: int = 6) -> str:
    """Return a number that a user may type back as a limit: never below `value`.

    Whole numbers are exact, others are rounded up to `digits` significant digits.
    """
    return _rounded(value, digits, ROUND_CEILING)


def at_most(value: float, digits: int = 6) -> str:
    """Return a number that a user may type back where `value` is available: never above it."""
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, rounding: str) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    found = Context(prec=digits, rounding=rounding).create_decimal(repr(float(value)))
    return f"{found.normalize():f}"
