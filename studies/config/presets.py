"""The shipped configurations by name; listing them imports no large library."""

from __future__ import annotations

from pathlib import Path

PRESETS = Path(__file__).parents[1] / "presets"
"""The folder of the shipped configurations."""


def presets() -> dict[str, Path]:
    """Return the shipped configurations by name."""
    return {path.stem: path for path in sorted(PRESETS.glob("*.yaml"))}
