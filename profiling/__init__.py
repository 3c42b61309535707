"""Costs of any torch module: parameters, MACs, memory, latency, layers and traces."""

import sys

if sys.version_info >= (3, 15):
    raise ImportError(
        "Python 3.15 has a standard-library package named `profiling` (PEP 799) that clashes with "
        "vae-nas's: use Python 3.11 to 3.14"
    )
