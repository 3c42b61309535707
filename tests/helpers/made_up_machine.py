"""A machine whose latencies follow a known law."""

from __future__ import annotations

from nas.operation import Operation
from nas.predict.calibration import (
    Measurement,
    Role,
)
from nas.predict.operations import operations
from search_spaces.architecture import Architecture
from search_spaces.references import ORIGINAL

SIZE = 64
SLOW = {"depthwise": 9.0, "depthwise_transposed": 12.0, "transposed": 2.0}
ORIGINAL_MS = 8.0


def law_ms(operation: Operation) -> float:
    """A machine on which depthwise arithmetic is dear and half of the time goes to memory."""
    arithmetic = operation.macs * 4e-8 * SLOW.get(operation.kind, 1.0)
    return 0.004 + arithmetic + operation.bytes_moved() * 1e-7


def total_ms(architecture: Architecture) -> float:
    return sum(1.02 * law_ms(operation) for operation in operations(architecture))


def fake(architecture: Architecture, role: Role) -> Measurement:
    """What that machine would measure."""
    unit = total_ms(ORIGINAL.resized(SIZE))
    ratio = total_ms(architecture) / unit
    times = tuple(law_ms(operation) / unit for operation in operations(architecture))
    samples = tuple((ratio * ms, ms) for ms in (ORIGINAL_MS, 0.9 * ORIGINAL_MS, ORIGINAL_MS))
    return Measurement(architecture, role, samples, (), False, times if role == "fitted" else ())
