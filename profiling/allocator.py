"""Keep freed memory in the process, so that large activations cause no page faults in each pass.

By default glibc returns large blocks to the kernel as soon as they are freed, and the kernel zeroes
each page again at its next use. For networks with large activations this can double the time of a
forward pass on a CPU. With higher thresholds the allocator keeps these pages.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Literal

AllocatorState = Literal["default", "tuned", "environment", "preloaded"]

# Parameter numbers from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1  # the largest int, which mallopt takes
_TOP_PAD_BYTES = 64 * 2**20
_ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

_tuned = False  # mallopt cannot be queried, so the process remembers its calls


def tune_allocator() -> bool:
    """Raise glibc's thresholds for the whole process; return whether it succeeded.

    The process then keeps the memory of a pass, so its resident size remains at its peak. If the C
    library is not glibc, nothing is changed and the result is False. Repeated calls are allowed.
    """
    global _tuned  # noqa: PLW0603 - mirrors state that lives in the C library
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # glibc caps M_MMAP_THRESHOLD at 32 MiB; forbidding mmap covers blocks of every size.
    wanted = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: _KEEP_BYTES,
        _M_TOP_PAD: _TOP_PAD_BYTES,
    }
    accepted = [libc.mallopt(parameter, value) == 1 for parameter, value in wanted.items()]
    _tuned = all(accepted)
    return _tuned


def allocator_state() -> AllocatorState:
    """Return how the allocator of this process was configured, as far as it is known.

    "tuned": by `tune_allocator`; "environment": by glibc's MALLOC_*_ variables; "preloaded":
    another allocator (jemalloc, tcmalloc, mimalloc) replaces glibc's.
    """
    preloaded = os.environ.get("LD_PRELOAD", "")
    if any(name in preloaded for name in ("jemalloc", "tcmalloc", "mimalloc")):
        return "preloaded"
    if _tuned:
        return "tuned"
    return "environment" if any(name in os.environ for name in _ENVIRONMENT) else "default"
