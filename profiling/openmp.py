"""The waiting policy of OpenMP's threads, which torch uses on a CPU."""

from __future__ import annotations

import os

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Environment variables of a process whose threads sleep while they wait, instead of spinning.

If another process uses the core, spinning makes a training step up to seven times as long, and a
single operation up to 100 times. Without contention, sleeping costs 5 %.
"""


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has set the variable.

    OpenMP reads the variable when torch is imported, so this must be called before.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)
