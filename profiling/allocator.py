"""Keep freed memory, so that large activations are not page-faulted anew on every pass.

By default glibc returns large blocks to the kernel as soon as they are freed, and the kernel zeroes
each page again at the next use. For networks with large activations this can double the time of a
forward pass on CPU. Raising the allocator's thresholds keeps those pages in the process.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Literal

AllocatorState = Literal["default", "tuned", "environment", "preloaded"]

# Parameter numbers from glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1  # mallopt takes an int: the largest there is
_TOP_PAD_BYTES = 64 * 2**20
_ENVIRONMENT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")

_tuned = False  # mallopt cannot be queried: what this process asked for is all there is to know


def tune_allocator() -> bool:
    """Raise glibc's thresholds for the whole process; return whether that took effect.

    Memory that a pass has used stays with the process, so its resident size remains at its peak.
    Does nothing and returns False where the C library is not glibc. Calling it again is harmless.
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
    """Return how this process's allocator was set up, as far as the process can know.

    "tuned": by `tune_allocator`; "environment": by glibc's MALLOC_*_ variables; "preloaded":
    another allocator (jemalloc, tcmalloc, mimalloc) stands in for glibc's.
    """
    preloaded = os.environ.get("LD_PRELOAD", "")
    if any(name in preloaded for name in ("jemalloc", "tcmalloc", "mimalloc")):
        return "preloaded"
    if _tuned:
        return "tuned"
    return "environment" if any(name in os.environ for name in _ENVIRONMENT) else "default"
