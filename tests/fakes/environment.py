"""The environment of a fake study, with every field that a real study records."""

from __future__ import annotations

from typing import Any

from profiling.environment import Environment
from studies.run.images import data_facts
from tests.fakes.dataset import noise

MACHINE = Environment(
    device="cpu",
    device_name="Example CPU 2.4 GHz",
    cpu_model="Example CPU 2.4 GHz",
    cores=2,
    threads=2,
    torch_version="2.13.0",
    python="3.11.9",
    os="Linux 6.1",
    allocator="tuned",
    mkldnn=True,
    tf32=False,
)

ENVIRONMENT: dict[str, Any] = {
    **MACHINE.model_dump(),
    **data_facts(noise(20, 4)),
    "original_latency_ms": None,
}
"""Of a study that measures no latency."""
