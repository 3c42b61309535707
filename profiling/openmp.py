"""How the threads of OpenMP, with which torch computes on a CPU, wait for each other."""

from __future__ import annotations

import os

PASSIVE_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Environment of a process whose threads sleep while they wait, instead of spinning.

Where another process wants the core, a training step with spinning threads takes up to seven times
as long, a single operation up to 100 times; sleeping costs 5 % on a quiet machine.
"""


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has set it otherwise.

    OpenMP reads the setting when torch is imported: call this before.
    """
    for name, value in PASSIVE_WAITING.items():
        os.environ.setdefault(name, value)
