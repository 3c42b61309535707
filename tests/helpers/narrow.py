"""Narrow models in the place of both references, for studies that are not about these.

A study trains its references first. They have so many layers, and `original` so many parameters,
that a small study spends nine tenths of its time on them. As a program, this module runs another
one with narrow references: `python -m tests.helpers.narrow MODULE ARGUMENTS`.
"""

from __future__ import annotations

import runpy
import sys

from search_spaces.architecture import Architecture
from search_spaces.references import MODIFIED, ORIGINAL, REFERENCES


def _narrow(reference: Architecture, **stage: int) -> Architecture:
    """Return a reference with the first and the last of its stages, narrower and shallower."""
    described = reference.to_dict()
    for name, widths in (("encoder", (8, 16)), ("decoder", (16, 8))):
        stages = described[name]["stages"]
        described[name]["stages"] = [
            {**one, **stage, "width": width}
            for one, width in zip((stages[0], stages[-1]), widths, strict=True)
        ]
    described["decoder"]["seed_width"] = 16
    return Architecture.from_dict({**described, "latent_size": 8})


NARROW = {"original": _narrow(ORIGINAL), "modified": _narrow(MODIFIED, layers=1, growth_rate=8)}

if __name__ == "__main__":
    REFERENCES.update(NARROW)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
