"""Costs of any torch module: parameters, MACs, memory, latency, layers and traces.

The names in `__all__` are this package's interface; its modules are internal and may change.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.version_info >= (3, 15):
    raise ImportError(
        "Python 3.15 has a standard-library package named `profiling` (PEP 799) that clashes with "
        "vae-nas's: use Python 3.11 to 3.14"
    )

if TYPE_CHECKING:
    from profiling.comparison import BackendRow, compare_backends
    from profiling.errors import ProfilingError
    from profiling.latency import Latency, LatencyConfig, measure_latency
    from profiling.layers import LayerTable, profile_layers
    from profiling.paired import PairedLatency, compare_latency

__all__ = [
    "BackendRow",
    "Latency",
    "LatencyConfig",
    "LayerTable",
    "PairedLatency",
    "ProfilingError",
    "compare_backends",
    "compare_latency",
    "measure_latency",
    "profile_layers",
]

_HOMES = {
    "BackendRow": "profiling.comparison",
    "Latency": "profiling.latency",
    "LatencyConfig": "profiling.latency",
    "LayerTable": "profiling.layers",
    "PairedLatency": "profiling.paired",
    "ProfilingError": "profiling.errors",
    "compare_backends": "profiling.comparison",
    "compare_latency": "profiling.paired",
    "measure_latency": "profiling.latency",
    "profile_layers": "profiling.layers",
}
"""The module of each name, which is imported at its first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
