"""The `nas` command with a slow disk, so that kills fall into the middle of writes.

Workers that it starts import this module too, so their disk is slow as well.
"""

from __future__ import annotations

import os
import time

from studies.cli.main import main

FLUSH_S = 0.02

_flush = os.fsync


def _flush_slowly(descriptor: int) -> None:
    time.sleep(FLUSH_S)
    _flush(descriptor)


os.fsync = _flush_slowly  # type: ignore[assignment]

if __name__ == "__main__":
    main()
